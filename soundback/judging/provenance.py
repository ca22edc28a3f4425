"""What an evaluation was built from: the stages that dvc.lock says were run, and the versions of what computed them.

dvc.lock is read as the YAML that it is, so that nothing here needs DVC.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import yaml

from soundback.errors import DataContractError

LIBRARIES = ("tensorflow", "keras", "numpy", "numba", "librosa", "scipy", "mir_eval", "av", "pyarrow")
"""What decides the result beside Soundback's own code."""

CODE = (".py", ".html")


@dataclass(frozen=True)
class Output:
    """One file or folder that a stage wrote.

    Attributes:
      path: from the project's folder, with "/".
      md5: as DVC has it; that of a folder ends in ".dir".
      size_bytes: of all its files.
      n_files: in the folder; 1 for a file.
    """

    path: str
    md5: str
    size_bytes: int
    n_files: int


@dataclass(frozen=True)
class Built:
    """What one stage built, or all stages of one name where there is one for each label.

    Attributes:
      name: as in dvc.yaml.
      keys: which labels there is one for; empty where there is one only.
      sources: names of the stages whose outputs it read.
      outputs: what it wrote.
      params: what it was told, {section: value}.
      n_code_files: on how many of the project's own code files it depends.
    """

    name: str
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[Output, ...]
    params: Mapping[str, Any]
    n_code_files: int

    @property
    def size_bytes(self) -> int:
        """Of all outputs."""
        return sum(output.size_bytes for output in self.outputs)

    @property
    def n_files(self) -> int:
        """Of all outputs."""
        return sum(output.n_files for output in self.outputs)

    @property
    def params_text(self) -> str:
        """The params as YAML, sorted."""
        return yaml.safe_dump(dict(self.params), sort_keys=True, allow_unicode=True, width=100) if self.params else ""


@dataclass(frozen=True)
class Provenance:
    """What was built from what: each stage after those whose outputs it read."""

    stages: tuple[Built, ...]


def read_versions() -> dict[str, str]:
    """Versions of Python, the libraries and the ffmpeg program that decide the result; "-" where one is not here."""
    versions = {"Python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            # tensorflow comes under other names as well, tensorflow-cpu for one.
            versions[library] = "-"
    return versions | {"ffmpeg": imageio_ffmpeg.get_ffmpeg_version()}


def read_provenance(inputs: Iterable[Path], locks: Iterable[Path]) -> Provenance | None:
    """Reads from what an evaluation's inputs were built, as the last run of each stage left it in a dvc.lock.

    Stages that nothing upstream needs are left out, and so are those of labels that are no longer among the params.

    Args:
      inputs: paths as in dvc.yaml.
      locks: dvc.lock of each pipeline, of schema 2.0; one that is not there is passed over.

    Returns:
      None where there is none at all: then it was built outside DVC.

    Raises:
      DataContractError: when a file is none of DVC's, or holds what is left of a merge.
    """
    found = [lock for lock in locks if lock.exists()]
    if not found:
        return None
    parts = {name: part for lock in found for name, part in _read_lock(lock).items()}
    reached = _upstream([path.as_posix() for path in inputs], parts)
    return Provenance(tuple(_merge(name, instances, parts) for name, instances in _in_order(reached).items()))


def _read_lock(lock: Path) -> dict[str, _Part]:
    try:
        locked = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        return {name: _read_stage(entry) for name, entry in locked.items()}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataContractError(
            f"{lock} is not the lock file of a DVC pipeline (schema 2.0, with `stages`): "
            f"{type(error).__name__}, {error}. "
            "Bring it back with `git checkout dvc.lock`, or build it anew with `dvc repro`."
        ) from error


@dataclass(frozen=True)
class _Part:
    """One entry of the lock."""

    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    params: Mapping[str, Any]

    @property
    def data(self) -> list[str]:
        return [path for path in self.inputs if not path.endswith(CODE)]


def _read_stage(entry: Mapping[str, Any]) -> _Part:
    params: dict[str, Any] = {}
    for sections in entry.get("params", {}).values():
        params |= sections
    outputs = (
        Output(out["path"], out.get("md5", "-"), out.get("size", 0), out.get("nfiles", 1))
        for out in entry.get("outs", [])
    )
    return _Part(tuple(dep["path"] for dep in entry.get("deps", [])), tuple(outputs), params)


def _upstream(inputs: Sequence[str], parts: Mapping[str, _Part]) -> dict[str, _Part]:
    """The stages whose outputs reach the inputs."""
    # Each label that the trainings, say, were told has stages of its own, which are told no other.
    labels = {label for part in parts.values() for label in part.params.get("labels", ())}
    current = {
        name: part
        for name, part in parts.items()
        if not labels or "@" not in name or "labels" in part.params or name.split("@")[1] in labels
    }
    reached: set[str] = set()
    waiting = [list(inputs)]
    while waiting:
        makers = _makers(waiting.pop(), current) - reached
        reached |= makers
        waiting += [current[name].data for name in makers]
    return {name: part for name, part in current.items() if name in reached}


def _makers(paths: Iterable[str], parts: Mapping[str, _Part]) -> set[str]:
    """Names of the stages that wrote what is at these paths, the whole or a part of it."""
    return {
        name
        for name, part in parts.items()
        if any(_overlap(output.path, path) for output in part.outputs for path in paths)
    }


def _overlap(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")


def _in_order(parts: Mapping[str, _Part]) -> dict[str, dict[str, _Part]]:
    """The stages by name, without their labels, each after those that it reads from; else by the alphabet."""
    named: dict[str, dict[str, _Part]] = {}
    for full_name in sorted(parts):
        named.setdefault(full_name.split("@")[0], {})[full_name] = parts[full_name]
    ordered: dict[str, dict[str, _Part]] = {}
    while len(ordered) < len(named):
        waiting = [name for name in named if name not in ordered]
        ready = [name for name in waiting if _sources(named[name], parts) <= {*ordered, name}]
        # A lock of two states that do not belong together can go round in a circle.
        ordered |= {name: named[name] for name in ready or waiting[:1]}
    return ordered


def _sources(instances: Mapping[str, _Part], parts: Mapping[str, _Part]) -> set[str]:
    return {maker.split("@")[0] for part in instances.values() for maker in _makers(part.data, parts)}


def _merge(name: str, instances: Mapping[str, _Part], parts: Mapping[str, _Part]) -> Built:
    return Built(
        name,
        keys=tuple(full_name.split("@")[1] for full_name in instances if "@" in full_name),
        sources=tuple(sorted(_sources(instances, parts) - {name})),
        outputs=tuple(output for part in instances.values() for output in part.outputs),
        params=_merge_params(instances),
        n_code_files=len({path for part in instances.values() for path in part.inputs if path.endswith(CODE)}),
    )


def _merge_params(instances: Mapping[str, _Part]) -> dict[str, Any]:
    """What all were told; where two were told different things, each under the stage's own name."""
    sections: dict[str, list[tuple[str, Any]]] = {}
    for full_name, part in instances.items():
        for section, value in part.params.items():
            sections.setdefault(section, []).append((full_name, value))
    merged: dict[str, Any] = {}
    for section, told in sections.items():
        if _agree(value for _, value in told):
            merged[section] = told[0][1]
        else:
            merged |= {f"{section} of {full_name}": value for full_name, value in told}
    return merged


def _agree(values: Iterable[Any]) -> bool:
    first, *others = values
    return all(other == first for other in others)
