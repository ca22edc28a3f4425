"""What the form of a run asks, as DVC's overrides of params.yaml and as environment variables."""

import re
from collections.abc import Mapping, Sequence

from soundback.errors import SettingsError
from soundback.params import load_params
from soundback.settings import load_settings
from soundback.sources.naming import key_of


def overrides_for(labels: Sequence[str], videos_per_label: int, settings: Sequence[str]) -> list[str]:
    """Puts the fields of a form into DVC's override syntax.

    Args:
      labels: display names or MIDs; those that params.yaml has keep the folder that they have. Empty: as there.
      videos_per_label: 0: as there.
      settings: overrides as they are, e.g. "frames.fit=pad".
    """
    overrides = [f"dataset.videos_per_label={videos_per_label}"] if videos_per_label else []
    if labels:
        known = load_params().labels
        wanted = {_folder_of(label, known): label for label in labels}
        # A branch that all labels leave goes with them.
        kept = {folder.split("/")[0] for folder in wanted}
        left = (folder if folder.split("/")[0] in kept else folder.split("/")[0] for folder in known.keys() - wanted)
        overrides += [f"~labels.{folder.replace('/', '.')}" for folder in sorted(set(left))]
        overrides += [f"+labels.{folder}={_quoted(label)}" for folder, label in wanted.items() if folder not in known]
    return [*overrides, *settings]


def environment_for(executor: str, dask_address: str) -> dict[str, str]:
    """How stages are to run, for their environment.

    Args:
      executor: as SOUNDBACK_EXECUTOR takes it, or "as set".
      dask_address: tcp://HOST:PORT; "" as set.

    Raises:
      SettingsError: if a Dask cluster is asked for, and there is no address of one.
    """
    if executor == "dask" and not (dask_address or load_settings().dask_address):
        raise SettingsError("A Dask cluster needs the address of its scheduler: dask_address, tcp://HOST:8786.")
    said = {"SOUNDBACK_EXECUTOR": "" if executor == "as set" else executor, "SOUNDBACK_DASK_ADDRESS": dask_address}
    return {name: value for name, value in said.items() if value}


def _folder_of(label: str, known: Mapping[str, str]) -> str:
    for folder, name in known.items():
        if label in (folder, name):
            return folder
    return key_of(label)


def _quoted(text: str) -> str:
    """As Hydra quotes: a backslash is one, but for those before a quote."""
    escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"
