"""The same systems trained from several seeds, on the same test videos: what holds beyond the luck of one training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from soundback.errors import DataContractError
from soundback.judging.claims import CLAIMS, PAIRS
from soundback.judging.intervals import Bootstrap, Interval, ends
from soundback.judging.scores import CLIP_COLUMNS as SOUND_COLUMNS
from soundback.judging.scores import MODEL_COLUMNS, SET_COLUMNS, read_scores

CLIP_COLUMNS = (*SOUND_COLUMNS, *MODEL_COLUMNS)

Evaluations = Mapping[str, Mapping[str, Any]]
"""{seed: as written to evaluation.json}."""


def read_evaluations(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, pd.DataFrame]]:
    """Reads what `evaluate_paper` wrote of every seed: folder/SEED/evaluation.json, folder/SEED/report/scores.parquet.

    Returns:
      evaluations and scores, {seed: ...} each.

    Raises:
      DataContractError: when there is none, or they are of different videos.
    """
    paths = sorted(folder.glob("*/evaluation.json"))
    if not paths:
        raise DataContractError(f"There is no evaluation in {folder}. Build it with `make quality`.")
    evaluations = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    tables = {seed: pd.DataFrame(read_scores(folder / seed / "report" / "scores.parquet")) for seed in evaluations}
    videos = {seed: frozenset(table["video_id"]) for seed, table in tables.items()}
    if len(set(videos.values())) > 1:
        told = ", ".join(f"{len(found)} of seed {seed}" for seed, found in videos.items())
        raise DataContractError(
            f"The evaluations in {folder} are of different videos ({told}). Build them anew with `make quality`."
        )
    return evaluations, tables


class Seeds:
    """Means and differences over seeds and videos.

    An interval is drawn over both: other videos, and other seeds. Of three seeds it says little of what a fourth would
    do, so each seed's own value stands beside it.
    """

    def __init__(self, evaluations: Evaluations, tables: Mapping[str, pd.DataFrame], bootstrap: Bootstrap) -> None:
        """Takes what `read_evaluations` gave; `bootstrap` says how the intervals are drawn."""
        self._evaluations, self._bootstrap = evaluations, bootstrap
        columns = list(CLIP_COLUMNS)
        by_video = [
            table.astype(dict.fromkeys(columns, float)).groupby(["row", "video_id"])[columns].mean()
            for table in tables.values()
        ]
        rows = [row for row in next(iter(evaluations.values()))["rows"]]
        videos = sorted(set(next(iter(tables.values()))["video_id"]))
        self._values = {
            row: {
                column: np.stack([table.loc[row][column].reindex(videos).to_numpy(np.float64) for table in by_video])
                for column in CLIP_COLUMNS
            }
            for row in rows
        }
        self.n_videos = len(videos)

    def describe(self) -> dict[str, Any]:
        """As it goes to quality.json.

        Returns:
          {"n_videos", "n_seeds", "judge", "claims", "rows": {ROW: {COLUMN: cell}}, "paired"}, as evaluation.json has
          them, every cell with "seeds", the value of each.
        """
        rows = {
            row: {column: self._mean(row, column) for column in (*CLIP_COLUMNS, *SET_COLUMNS)} for row in self._values
        }
        return {
            "n_videos": self.n_videos,
            "n_seeds": len(self._evaluations),
            "judge": next(iter(self._evaluations.values()))["judge"],
            "claims": {
                name: claim.describe(self._compare(claim.first, claim.second, claim.column, claim.by))
                | {"seeds": [evaluation["claims"][name]["mean"] for evaluation in self._evaluations.values()]}
                for name, claim in CLAIMS.items()
            },
            "rows": rows,
            "paired": {
                f"{first}_minus_{second}": {
                    column: self._compare(first, second, column).cell() | self._told("paired", first, second, column)
                    for column in columns
                }
                for first, second, columns in PAIRS
                if first in self._values and second in self._values
            },
        }

    def _mean(self, row: str, column: str) -> dict[str, Any]:
        cells = [evaluation["rows"][row][column] for evaluation in self._evaluations.values()]
        found = _widest(cells) if column in SET_COLUMNS else self._interval(self._values[row][column])
        return found.cell() | {"seeds": [cell["mean"] for cell in cells]}

    def _told(self, kind: str, first: str, second: str, column: str) -> dict[str, Any]:
        name = f"{first}_minus_{second}"
        return {"seeds": [evaluation[kind][name][column]["mean"] for evaluation in self._evaluations.values()]}

    def _compare(self, first: str, second: str, column: str, by: str = "difference") -> Interval:
        if first not in self._values or second not in self._values:
            return Interval(None, None, None, 0)
        if column in SET_COLUMNS:
            name = f"{first}_minus_{second}"
            found = [evaluation["paired"].get(name, {}).get(column) for evaluation in self._evaluations.values()]
            if all(found):
                return _widest(found)
            # The other way round, and so with the other sign.
            name = f"{second}_minus_{first}"
            turned = [_turn(evaluation["paired"][name][column]) for evaluation in self._evaluations.values()]
            return _widest(turned)
        ours, theirs = self._values[first][column], self._values[second][column]
        known = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
        if by == "difference":
            return self._interval((ours - theirs)[:, known])
        return self._interval(ours[:, known], theirs[:, known])

    def _interval(self, values: np.ndarray, over: np.ndarray | None = None) -> Interval:
        """Of a mean, or of one mean over another; [n_seeds, n_videos] each, videos that are nan anywhere left out."""
        known = np.isfinite(values).all(axis=0)
        values = values[:, known]
        n_seeds, n_videos = values.shape
        if not n_videos:
            return Interval(None, None, None, 0)
        seeds = np.random.default_rng([self._bootstrap.seed, n_seeds]).multinomial(
            n_seeds, np.full(n_seeds, 1 / n_seeds), size=self._bootstrap.n_resamples
        )
        videos = self._bootstrap.counts(n_videos)

        def resampled(of: np.ndarray) -> np.ndarray:
            return np.einsum("rs,sv,rv->r", seeds, of, videos, optimize=True) / of.size

        drawn, mean = resampled(values), float(values.mean())
        if over is not None:
            drawn, mean = drawn / resampled(over[:, known]), mean / float(over[:, known].mean())
        return Interval(mean, *ends(drawn), n_videos)


def _widest(cells: Sequence[Mapping[str, Any]]) -> Interval:
    """Of what no clip has alone: the mean over seeds, and from the lowest end of their intervals to the highest."""
    if any(cell["mean"] is None for cell in cells):
        return Interval(None, None, None, 0)
    low, high = (pick(cell[end] for cell in cells) for end, pick in (("low", min), ("high", max)))
    return Interval(float(np.mean([cell["mean"] for cell in cells])), low, high, cells[0]["n"])


def _turn(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A difference seen from the other side."""
    if cell["mean"] is None:
        return dict(cell)
    return {"mean": -cell["mean"], "low": -cell["high"], "high": -cell["low"], "n": cell["n"]}
