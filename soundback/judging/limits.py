"""Whether figures are where they should be: what `make quality` fails by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from soundback.errors import ParamsError


def read_limits(path: Path) -> dict[str, tuple[float, float]]:
    """Reads a YAML file of limits: a line `rows.local_true.onset_f1_100ms: [0.85, 1.0]` for each figure.

    Returns:
      {name of the figure: (least, most)}.

    Raises:
      ParamsError: naming every line that is no such pair.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path} cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from error
    if not isinstance(told, dict) or not told:
        raise ParamsError(f"{path} holds no limits; expected lines as NAME: [least, most].")
    wrong = [name for name, pair in told.items() if not _is_pair(pair)]
    if wrong:
        found = "\n".join(f"  {name}: {told[name]!r}" for name in wrong)
        raise ParamsError(f"{path} should say [least, most] of every figure, but has\n{found}")
    return {str(name): (float(pair[0]), float(pair[1])) for name, pair in told.items()}


def find_outside(figures: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> list[str]:
    """A line for each figure that is missing or outside its limits.

    Args:
      figures: an evaluation as written to JSON; a figure is a number or a cell, of which the mean counts.
      limits: of `read_limits`; names are the keys on the way to a figure, with dots between.
    """
    outside = []
    for name, (least, most) in limits.items():
        value = _find(figures, name)
        if value is None:
            outside.append(f"{name}: not measured, expected {least:g} to {most:g}")
        elif not least <= value <= most:
            outside.append(f"{name}: {value:.3f}, expected {least:g} to {most:g}")
    return outside


def _find(figures: Any, name: str) -> float | None:
    for key in name.split("."):
        figures = figures.get(key) if isinstance(figures, Mapping) else None
    if isinstance(figures, Mapping):
        figures = figures.get("mean")
    return None if figures is None else float(figures)


def _is_pair(pair: Any) -> bool:
    numbers = isinstance(pair, list) and all(isinstance(end, int | float) for end in pair)
    return numbers and len(pair) == 2 and pair[0] <= pair[1]
