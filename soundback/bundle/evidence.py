"""What vouches for what is said of trained models: dvc.lock pins a model with its figures and with what it learnt from.

Without it, figures lie beside models that may have been trained again since.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from soundback.attrition import Tables
from soundback.bundle.card import Category
from soundback.dataset import audio_clips
from soundback.errors import DataContractError
from soundback.schemas import CATALOG, SPLITS, read_table

EVALUATION = "evaluation"


@dataclass(frozen=True)
class Figures:
    """What was measured of some models.

    Attributes:
      found: {"evaluation", or kind of model: the JSON that evaluate or the training wrote}.
      gaps: what is not told and why, a sentence each.
    """

    found: Mapping[str, Any]
    gaps: tuple[str, ...]


class Evidence:
    """What there is to know of a folder of models, beside the models themselves.

    Attributes:
      models: folder.
      metrics: folder of figures.
    """

    def __init__(self, models: Path, metrics: Path, lock: Path | None) -> None:
        """Takes where it is.

        Args:
          models: folder.
          metrics: folder of figures.
          lock: dvc.lock; None, or a path where there is none, for models that were trained without DVC.

        Raises:
          DataContractError: when the lock is none of DVC's.
        """
        self.models = models
        self.metrics = metrics
        self._root = lock.parent if lock is not None and lock.is_file() else None
        self._stages = _read_stages(lock) if lock is not None and self._root is not None else {}

    def read_figures(self, kinds: Iterable[str]) -> Figures:
        """The figures of these models; those that may be of others are left out.

        Raises:
          DataContractError: when a file is not JSON.
        """
        found: dict[str, Any] = {}
        gaps = []
        for name in (EVALUATION, *kinds):
            path = self.metrics / f"{name}.json"
            missed = "how well the models do" if name == EVALUATION else f"how the training of the {name} went"
            if not path.is_file():
                gaps.append(f"There was no {path.name}: {missed}.")
            elif self._root is not None and not self._is_pinned(name, path):
                gaps.append(f"{path.name} may be of other models, going by dvc.lock: {missed}.")
            else:
                found[name] = _read_json(path)
        if found and self._root is None:
            gaps.append("There was no dvc.lock to say whether the figures are of these very models.")
        return Figures(found, tuple(gaps))

    def list_categories(self, names: Sequence[str], kinds: Iterable[str], labels: Mapping[str, str]) -> list[Category]:
        """What is known of each category: its folder, its MID, and of how many videos the models learnt it.

        Args:
          names: of the categories.
          kinds: of the models that learnt from the videos.
          labels: of the params, {folder: display name, MID or index}.

        Raises:
          DataContractError: when the tables are not those of these labels.
        """
        tables = self._find_tables(kinds)
        if tables is None or tables.duplicates is None:
            folders = {label: folder for folder, label in labels.items()}
            return [Category(name, folders.get(name), None, {}) for name in names]
        clips = audio_clips(tables.audio, tables.duplicates, labels)
        videos = {(clip.label, clip.split, clip.video_id) for clip in clips}
        counts = Counter((label, split) for label, split, _ in videos)
        listed = _read_catalogs(tables.audio.parent / "catalog", labels)
        found = []
        for name in names:
            folder, label_mid = listed.get(name, (None, None))
            found.append(Category(name, folder, label_mid, {split: counts[name, split] for split in SPLITS}))
        return found

    def _find_tables(self, kinds: Iterable[str]) -> Tables | None:
        """The tables of the videos that the models learnt from; None where they are not there as they were then."""
        stages = [self._training(kind) for kind in kinds]
        if self._root is None or not all(stages):
            return None
        # All learnt from one state of the data, and that is still the one here.
        audio, duplicates = (_find_same(stages, name) for name in ("audio", "duplicates.parquet"))
        if audio is None or duplicates is None:
            return None
        tables = Tables.of((self._root / audio["path"]).parent)
        sizes = [path.stat().st_size for path in tables.audio.rglob("*") if path.is_file()]
        if (sum(sizes), len(sizes)) != (audio.get("size"), audio.get("nfiles")):
            return None
        return tables if _md5(self._root / duplicates["path"]) == duplicates.get("md5") else None

    def _training(self, kind: str) -> Mapping[str, Any]:
        """What dvc.lock says of the training of this very model; empty where it says nothing."""
        stage = self._stages.get(f"train_{kind}", {})
        known = _find(stage, "outs", f"{kind}.keras").get("md5")
        return stage if known is not None and known == _md5(self.models / f"{kind}.keras") else {}

    def _is_pinned(self, name: str, path: Path) -> bool:
        if name != EVALUATION:
            stage = self._training(name)
        else:
            stage = self._stages.get("evaluate", {})
            if _find(stage, "deps", "models").get("md5") != _md5_of_folder(self.models):
                return False
        return _find(stage, "outs", path.name).get("md5") == _md5(path)


def _read_stages(lock: Path) -> dict[str, Any]:
    try:
        stages: dict[str, Any] = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataContractError(
            f"{lock} is not the lock file of a DVC pipeline ({type(error).__name__}, {error}). Bring it back with "
            "`git checkout dvc.lock`, or build it anew with `dvc repro`."
        ) from error
    return stages


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataContractError(f"{path} is not JSON ({error}). Build it again with `dvc repro`.") from error


def _find(stage: Mapping[str, Any], side: str, name: str) -> dict[str, Any]:
    """What is pinned of a stage's dependency or output of this name; empty where there is none."""
    return next((entry for entry in stage.get(side, ()) if Path(entry["path"]).name == name), {})


def _find_same(stages: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    """What is pinned of the dependency of this name, if it is the same to all stages that have it."""
    entries = [entry for stage in stages if (entry := _find(stage, "deps", name))]
    return entries[0] if entries and all(entry == entries[0] for entry in entries) else None


def _read_catalogs(root: Path, labels: Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """Folder and MID of each label, by display name."""
    listed = {}
    for folder in labels:
        path = root / folder / "catalog.parquet"
        for row in read_table(path, CATALOG).slice(0, 1).to_pylist() if path.is_file() else ():
            listed[row["label"]] = (folder, row["label_mid"] or None)
    return listed


def _md5(path: Path) -> str | None:
    """As DVC has it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else None


def _md5_of_folder(folder: Path) -> str:
    """As DVC has it: that of the list of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [{"md5": _md5(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
