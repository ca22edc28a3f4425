"""Learning curves: what a training left in its folder of plots, and a small picture of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from soundback.errors import DataContractError
from soundback.judging.pictures import GENERATED, REAL, png

TABLES = Path("plots", "metrics")
"""Where a training's tables lie in its folder, as DVCLive puts them."""


@dataclass(frozen=True)
class Curve:
    """What was measured of one training, a point per validation.

    Attributes:
      name: of what was trained.
      losses: (step, mean training loss since the point before).
      validations: (step, loss on the validation videos); the model has the weights of the lowest.
    """

    name: str
    losses: tuple[tuple[int, float], ...]
    validations: tuple[tuple[int, float], ...]

    @property
    def best(self) -> tuple[int, float]:
        """Step and value of the lowest validation, the first of equals."""
        known = [point for point in self.validations if math.isfinite(point[1])]
        return min(known or self.validations, key=lambda point: point[1])

    @property
    def words(self) -> str:
        """What the picture shows, for who does not see it."""
        (step, best), loss = self.best, self._course("training loss", self.losses)
        course = self._course("validation", self.validations)
        return f"{self.name}: {loss}; {course}; lowest validation {best:.3g} at step {step}"

    @staticmethod
    def _course(what: str, points: tuple[tuple[int, float], ...]) -> str:
        (first_step, first), (last_step, last) = points[0], points[-1]
        return f"{what} from {first:.3g} at step {first_step} to {last:.3g} at step {last_step}"


def read_curves(folders: Mapping[str, Path]) -> list[Curve]:
    """Reads the curves of several trainings.

    Args:
      folders: of plots, {what was trained: folder}; one that is not there is passed over, since curves decide nothing
        and a model may have come without them.

    Raises:
      DataContractError: when a folder is there and holds no whole curve.
    """
    return [
        Curve(
            name,
            _read_points(folder / TABLES / "loss.tsv", "loss"),
            _read_points(folder / TABLES / "validation.tsv", "validation"),
        )
        for name, folder in folders.items()
        if folder.exists()
    ]


def draw_curve(curve: Curve) -> bytes:
    """Loss and validation over steps, the best step marked: a PNG narrow enough for a phone."""
    figure = Figure(figsize=(3.7, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve.losses, strict=True), color=REAL, linestyle="--", marker=".", label="training loss")
    axes.plot(*zip(*curve.validations, strict=True), color=GENERATED, marker=".", label="validation")
    step, value = curve.best
    axes.axvline(step, color="#57606a", linewidth=1, linestyle=":")
    axes.plot([step], [value], "o", markersize=9, markerfacecolor="none", color=GENERATED, label=f"best: {value:.3g}")
    axes.set_title(curve.name, loc="left")
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return png(figure, dpi=110)


def _read_points(path: Path, column: str) -> tuple[tuple[int, float], ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            points = tuple((int(row["step"]), float(row[column])) for row in csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise _not_a_curve(path, column, repr(error)) from error
    if not points:
        raise _not_a_curve(path, column, "no row")
    return points


def _not_a_curve(path: Path, column: str, found: str) -> DataContractError:
    return DataContractError(
        f"{path} is not a learning curve: expected tab-separated columns step and {column} with a row or more, "
        f"found {found}. Train again with `dvc repro`."
    )
