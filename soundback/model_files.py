"""Model files: .keras with a card inside that says what the model is and what it was trained on."""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from soundback.errors import ModelError
from soundback.outputs import whole_file

CARD = "soundback.json"
FORMAT = 2
"""Goes up when a card or a network's layers change, so that an older file is told apart from a damaged one."""


def save_model(model: keras.Model, path: Path, card: dict[str, Any]) -> None:
    """Writes a .keras file that also holds a card: what the model is and what it was trained on.

    The file appears whole or not at all, and holds no clock time and no address: the same model gives the same bytes.

    Args:
      model: any Keras model that loads in safe mode.
      path: ends in .keras.
      card: JSON values; read back by `load_model`.
    """
    with tempfile.TemporaryDirectory() as folder, whole_file(path) as partial:
        plain = Path(folder) / "plain.keras"  # Keras insists on the suffix.
        model.save(plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "metadata.json":
                    content = _without_date(content)
                elif name == "config.json":
                    content = _numbered_anew(content)
                target.writestr(zipfile.ZipInfo(name), content)
            target.writestr(zipfile.ZipInfo(CARD), json.dumps(card | {"format": FORMAT}, indent=1, sort_keys=True))


def _without_date(metadata: bytes) -> bytes:
    return json.dumps({key: value for key, value in json.loads(metadata).items() if key != "date_saved"}).encode()


def _numbered_anew(config: bytes) -> bytes:
    """Counts what layers share, where Keras calls it by its address in memory."""
    numbers: dict[int, int] = {}

    def renumber(part: dict[str, Any]) -> dict[str, Any]:
        if part.get("shared_object_id") is not None:
            part["shared_object_id"] = numbers.setdefault(part["shared_object_id"], len(numbers) + 1)
        return part

    return json.dumps(json.loads(config, object_hook=renumber)).encode()


def load_model(path: Path, kind: str) -> tuple[keras.Model, dict[str, Any]]:
    """Reads what `save_model` wrote.

    Args:
      path: of the file.
      kind: "classifier", "spotter", "wavenet" or "judge": what its card must say.

    Raises:
      ModelError: when the file is missing, damaged, not one of Soundback's, of another kind or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            card = json.loads(archive.read(CARD))
        if (written := card.pop("format", 1)) != FORMAT:
            age = "an older" if written < FORMAT else "a newer"
            raise ModelError(
                f"{path} was written by {age} Soundback, in format {written}; this one reads format {FORMAT}. "
                "Train it again with `dvc repro`, or install the Soundback it is from."
            )
        model = keras.models.load_model(path, compile=False)
    except FileNotFoundError as error:
        raise ModelError(
            f"There is no model {path}. Train it with `dvc repro`, or fetch it with `dvc pull`."
        ) from error
    # Keras says TypeError of a layer it does not know.
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is not a model that Soundback wrote ({error}). Train it with `dvc repro`.") from error
    if card.get("kind") != kind:
        raise ModelError(f"{path} holds a {card.get('kind')}, not a {kind}. Give the file of stage train_{kind}.")
    return model, card
