"""A bundle: one folder of trained models and all that goes with them, to take to another machine.

    classifier.keras spotter.keras wavenet.keras    what `Soundtrack.load` loads
    judge.keras    if there is one: another machine may want to score sounds, and it is small
    params.yaml    as the models were trained with, whole
    labels.csv     category, folder, YouTube-8M MID, videos of each split
    README.md      the model card; of all files the one that may be edited, to name the weights' licence for one
    bundle.json    format, sha256 and size of the others, and all that the card is written from

No clock time, host or path is in it: the same models, figures and tables give the same bytes, under the same libraries.
"""

import csv
import hashlib
import importlib.metadata
import json
import math
import shutil
import textwrap
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soundback.bundle.card import WIDTH, Category, ModelCard, as_markdown, as_text
from soundback.bundle.evidence import Evidence
from soundback.errors import ModelError, SoundbackError
from soundback.judging.provenance import read_versions
from soundback.outputs import check_free, whole_folder
from soundback.params import Params, load_params
from soundback.schemas import SPLITS

FORMAT = 1
"""Goes up when bundle.json or the folder changes, so that an older Soundback says that it cannot read it."""

NAME, README, LABELS, PARAMS = "bundle.json", "README.md", "labels.csv", "params.yaml"
KINDS = ("classifier", "spotter", "wavenet")
"""What sounding takes."""

LOADED_WITH = ("Python", "keras", "tensorflow", "numpy", "numba")
"""What decides whether the models load, and how they sound."""


@dataclass(frozen=True)
class File:
    """A file of a bundle.

    Attributes:
      name: in the folder.
      size_bytes: its size.
      sha256: of its bytes.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A folder of models whose files are as they were exported.

    Attributes:
      folder: where it is.
      is_exported: False of a plain folder of models: nothing says there how its files should be.
      files: without bundle.json and README.md.
      card: what is known of the models.
    """

    folder: Path
    is_exported: bool
    files: tuple[File, ...]
    card: ModelCard


def export(out: Path, *, models: Path, params: Path, metrics: Path, lock: Path | None, overwrite: bool = False) -> None:
    """Writes a bundle, whole or not at all.

    Figures that dvc.lock does not pin together with these models are left out: they may be of others. Without a
    dvc.lock, they are taken at their word, and the card says so.

    Args:
      out: the folder to write.
      models: folder of the trained models.
      params: the params file they were trained with.
      metrics: folder of what evaluate and the trainings measured; what is missing is said to be missing.
      lock: DVC's file of what was built from what; beside it lie the tables in which the videos are counted.
      overwrite: whether a bundle may be replaced; anything else never is.

    Raises:
      ModelError: when a model does not load in Keras' safe mode, or they do not belong together or to the params.
      ParamsError: when the params cannot be read.
      SoundbackError: when there is something at `out`; nothing is written then.
    """
    check_free(out, overwrite=overwrite)
    _check_replaceable(out, models)
    settings = load_params(params)
    cards = _open_together(models, settings)
    card = _draw_up(cards, settings, Evidence(models, metrics, lock))
    with whole_folder(out) as partial:
        for kind in cards:
            shutil.copyfile(models / f"{kind}.keras", partial / f"{kind}.keras")
        shutil.copyfile(params, partial / PARAMS)
        _write_labels(card.categories, partial / LABELS)
        (partial / README).write_text(as_markdown(card), encoding="utf-8")
        names = (*(f"{kind}.keras" for kind in cards), PARAMS, LABELS)
        told = {"files": [asdict(_examine(partial / name)) for name in names], "card": asdict(card)}
        sealed = {"format": FORMAT, "sha256": _seal(told), **told}
        (partial / NAME).write_text(json.dumps(sealed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> Bundle:
    """Reads a bundle and checks every file of it, or a plain folder of models.

    Raises:
      ModelError: when there is neither, a file is missing or not as it was exported, or a newer Soundback wrote it.
    """
    if not (folder / NAME).is_file():
        return _read_plain(folder)
    told = _read_told(folder / NAME)
    files = tuple(File(**each) for each in told["files"])
    for file in files:
        _check(folder / file.name, file)
    categories = tuple(Category(**each) for each in told["card"]["categories"])
    card = told["card"] | {"categories": categories, "gaps": tuple(told["card"]["gaps"])}
    return Bundle(folder, True, files, ModelCard(**card))


def describe(bundle: Bundle) -> str:
    """What `soundback info` prints: the essentials of the model card, the files first."""
    sizes = ", ".join(f"{file.name} {math.ceil(file.size_bytes / 1e3):,} kB" for file in bundle.files)
    kind = f"a Soundback bundle (format {FORMAT}), every file as it was exported"
    if not bundle.is_exported:
        kind = "a plain folder of models; they load, and nothing says how their bytes should be"
    text = f"{bundle.folder}: {kind}.\n{textwrap.fill(sizes, WIDTH)}\n\n{as_text(bundle.card)}"
    # The words are those of whoever exported it: none of them shall move the cursor.
    return "".join(mark if mark.isprintable() or mark == "\n" else "?" for mark in text)


def _check_replaceable(out: Path, models: Path) -> None:
    if models.resolve() in (out.resolve(), *out.resolve().parents):
        raise SoundbackError(f"{out} is in the folder of the models. Choose another one: {models} must stay as it is.")
    if out.exists() and not (out / NAME).is_file():
        raise SoundbackError(f"{out} is no bundle, and is not replaced by one. Choose another name, or delete it.")


def _kinds(models: Path) -> list[str]:
    return [*KINDS, *(["judge"] if (models / "judge.keras").is_file() else [])]


def _open_together(models: Path, params: Params) -> dict[str, dict[str, Any]]:
    """Loads all models, in Keras' safe mode, and returns what each says of itself, {kind: its card}.

    Raises:
      ModelError: when one does not load, or they do not belong to each other or to the params.
    """
    # TensorFlow takes seconds to import, and reading a bundle takes none of it.
    from soundback.model_files import CARD, load_model
    from soundback.soundtrack import Soundtrack

    Soundtrack.load(models, params=params.soundtrack)
    cards = {kind: json.loads(_read_member(models / f"{kind}.keras", CARD)) for kind in KINDS}
    if "judge" in _kinds(models):
        _, cards["judge"] = load_model(models / "judge.keras", "judge")
    wavenet, classifier = cards["wavenet"], cards["classifier"]
    judge = cards.get("judge", wavenet)
    if (judge["categories"], judge["sample_rate"]) != (wavenet["categories"], wavenet["sample_rate"]):
        raise ModelError(
            f"{models / 'judge.keras'} hears {', '.join(judge['categories'])} at {judge['sample_rate']} Hz, the "
            f"WaveNet sounds {', '.join(wavenet['categories'])} at {wavenet['sample_rate']} Hz: they are of different "
            "trainings. Train it again with `dvc repro train_judge`, or take it away."
        )
    pairs = [
        ("audio.sample_rate", params.audio.sample_rate, wavenet["sample_rate"]),
        ("frames.frame_rate", params.frames.frame_rate, wavenet["frame_rate"]),
        ("frames.size", params.frames.size, classifier["size"]),
        ("frames.fit", params.frames.fit, classifier["fit"]),
    ]
    for kind in KINDS:
        section = getattr(params, kind).model_dump(mode="json")
        trained = cards[kind]["params"]
        pairs += [(f"{kind}.{name}", section[name], trained[name]) for name in trained if name in section]
    for name, said, trained in pairs:
        if said != trained:
            raise ModelError(
                f"The models in {models} were trained with other params: {name} was {trained}, and is {said} now. Give "
                "the params file they were trained with (--params), or train them again with `dvc repro`."
            )
    return cards


def _draw_up(cards: Mapping[str, Any], params: Params, evidence: Evidence) -> ModelCard:
    categories = evidence.list_categories(cards["wavenet"]["categories"], KINDS, params.labels)
    figures = evidence.read_figures(cards)
    trained_with = json.loads(_read_member(evidence.models / "wavenet.keras", "metadata.json"))["keras_version"]
    here = read_versions()
    return _card(
        cards,
        categories,
        source=params.source.kind,
        figures=figures.found,
        gaps=figures.gaps,
        versions={
            "Soundback": importlib.metadata.version("soundback"),
            **{what: here[what] for what in LOADED_WITH},
            "keras (training)": trained_with,
        },
    )


def _card(cards: Mapping[str, Any], categories: Iterable[Category], **known: Any) -> ModelCard:
    return ModelCard(
        tuple(categories),
        sample_rate=cards["wavenet"]["sample_rate"],
        frame_rate=cards["wavenet"]["frame_rate"],
        frame_size=cards["classifier"]["size"],
        unsure_below=cards["classifier"]["params"]["unsure_below"],
        **known,
    )


def _read_plain(folder: Path) -> Bundle:
    if not any((folder / f"{kind}.keras").is_file() for kind in KINDS):
        raise ModelError(f"{folder} is no bundle and no folder of models: it has neither {NAME} nor {KINDS[0]}.keras.")
    from soundback import soundtrack  # noqa: F401 - brings the layers that Keras shall know
    from soundback.model_files import load_model

    cards = {kind: load_model(folder / f"{kind}.keras", kind)[1] for kind in _kinds(folder)}
    card = _card(
        cards,
        (Category(name, None, None, {}) for name in cards["wavenet"]["categories"]),
        source=None,
        figures={},
        gaps=("Figures, source and licence of the data: `soundback export` writes them down.",),
        versions={},
    )
    return Bundle(folder, False, tuple(_examine(folder / f"{kind}.keras") for kind in cards), card)


def _read_told(path: Path) -> dict[str, Any]:
    """What bundle.json says, if it is as it was written and of this format."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        form, seal = told.pop("format"), told.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({error}). Copy the bundle again from where it was exported.") from error
    if form != FORMAT:
        age = "an older" if isinstance(form, int) and form < FORMAT else "a newer"
        raise ModelError(
            f"{path.parent} was exported by {age} Soundback, in format {form}; this one reads format {FORMAT}. Install "
            "the Soundback it is from, or export it again."
        )
    if seal != _seal(told):
        raise ModelError(f"{path} is not as it was exported. Copy the bundle again from where it was exported.")
    return told


def _read_member(path: Path, name: str) -> bytes:
    """A file inside a model's."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _check(path: Path, file: File) -> None:
    if not path.is_file():
        raise ModelError(f"{path} is missing. Copy the bundle again from where it was exported.")
    if (found := _examine(path)) != file:
        raise ModelError(
            f"{path} is not as it was exported: {found.size_bytes} bytes with sha256 {found.sha256[:12]}..., expected "
            f"{file.size_bytes} with {file.sha256[:12]}.... Copy the bundle again from where it was exported."
        )


def _examine(path: Path) -> File:
    with path.open("rb") as opened:
        return File(path.name, path.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest())


def _seal(told: Mapping[str, Any]) -> str:
    """By which bundle.json itself is seen to be as it was written."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _write_labels(categories: tuple[Category, ...], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["category", "folder", "label_mid", *SPLITS])
        writer.writerows(
            [each.name, each.folder, each.label_mid, *(each.n_videos.get(split) for split in SPLITS)]
            for each in categories
        )
