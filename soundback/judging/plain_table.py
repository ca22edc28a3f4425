"""The evaluation as plain text, for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from soundback.judging.columns import (
    WITH_INTERVALS,
    Column,
    columns_of,
    format_cell,
    format_difference,
    format_number,
    groups_of,
)

TOLD_FIRST = ("category", "onsets", "loudness")
"""Groups of columns that stand side by side; the others follow below: all together are wider than a terminal."""


def format_table(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as plain text: what the judge is worth, a line per row, claims, and all else that was measured.

    An interval of 95 % stands in brackets. What an older evaluation.json does not have is left out.
    """
    parts = [
        _format_head(evaluation),
        *_format_rows(evaluation["rows"]),
        _format_claims(evaluation.get("claims", {})),
        *(_format_watching(evaluation, whose) for whose in ("", "paper_")),
        _format_probes(evaluation.get("probes", {})),
        _format_paired(evaluation.get("paired", {})),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def judge_sentence(judge: Mapping[str, Any]) -> str:
    """What a row's category is worth: no more than the judge that names it."""
    accuracy = judge["accuracy"]
    told = f"The judge names {format_cell(accuracy)} of the real test sounds rightly (n {accuracy['n']})"
    return f"{told}: that is the ceiling of every row."


def outcome(claim: Mapping[str, Any]) -> str:
    """Whether a claim holds, in words."""
    return {True: "holds", False: "FAILED", None: "not measured"}[claim["holds"]]


def _format_head(evaluation: Mapping[str, Any]) -> list[str]:
    judge = [judge_sentence(evaluation["judge"])] if "judge" in evaluation else []
    return [*judge, f"Held-out videos: {evaluation['n_videos']}"]


def _format_rows(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Two tables of the same rows."""
    groups = groups_of(columns_of(rows))
    blocks = [
        [column for group, columns in groups if (group in TOLD_FIRST) == first for column in columns]
        for first in (True, False)
    ]
    return [_format_block(rows, columns) for columns in blocks if columns]


def _format_block(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    cells = [["", *(column.title for column in columns)]]
    cells += [
        [row, *(format_cell(told.get(c.key), with_interval=c.key in WITH_INTERVALS) for c in columns)]
        for row, told in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _format_claims(claims: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for claim in claims.values():
        lines += [f"  {outcome(claim).ljust(12)}  {claim['claim']}"]
        seeds = ", ".join(map(format_number, claim.get("seeds", ())))
        lines += [
            f"  {''.ljust(12)}  {_with_count(claim)}; needed: {claim['needed']}" + (seeds and f"; seeds: {seeds}")
        ]
    return ["What is claimed, and whether it holds:", *lines] if lines else []


def _format_watching(evaluation: Mapping[str, Any], whose: str) -> list[str]:
    """Of the cue sheets that ours wrote, or the paper's system where `whose` says so."""
    intervals = evaluation.get(f"{whose}watching_intervals", {})
    lines = [
        f"  {key.ljust(34)} {_with_count(intervals.get(key) or {'mean': value})}"
        for key, value in evaluation.get(f"{whose}watching", {}).items()
    ]
    title = "What the paper's system sees, as cue sheets" if whose else "Cue sheets"
    return [f"{title} against the truth, before any sound is made:", *lines] if lines else []


def _format_probes(probes: Mapping[str, Any]) -> list[str]:
    lines = [f"  {key.ljust(34)} {_with_count(cell)}" for key, cell in probes.items()]
    return ["Videos altered on purpose:", *lines] if lines else []


def _format_paired(paired: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, differences in paired.items():
        lines += [f"  {name.replace('_minus_', ' - ')}"]
        lines += [
            f"    {key.ljust(22)} {format_difference(cell)}  (n {cell['n']})" for key, cell in differences.items()
        ]
    return ["Paired differences over the same videos, with 95 % intervals:", *lines] if lines else []


def _with_count(cell: Mapping[str, Any]) -> str:
    return f"{format_cell(cell)}  (n {cell['n']})" if cell.get("n") else format_cell(cell)
