"""What Soundback claims of itself, whether an evaluation bears it out, and which rows are worth comparing."""

from dataclasses import dataclass
from typing import Any, Literal

from soundback.judging.intervals import Interval


@dataclass(frozen=True)
class Claim:
    """One row is better than another in one column, by how much at least.

    Attributes:
      sentence: in words.
      first: row that should have more.
      second: row that should have less.
      column: of the table.
      by: "difference", first minus second, or "share", first over second.
      mean: least value of the mean; None where only the interval counts.
      low: what the interval must lie above; None where only the mean counts.
    """

    sentence: str
    first: str
    second: str
    column: str
    by: Literal["difference", "share"] = "difference"
    mean: float | None = None
    low: float | None = None

    @property
    def needed(self) -> str:
        """What it takes to hold, in words."""
        needs = [] if self.mean is None else [f"at least {self.mean:g}"]
        needs += [] if self.low is None else [f"its interval above {self.low:g}"]
        return ", ".join(needs)

    def describe(self, found: Interval) -> dict[str, Any]:
        """The claim and what was found, as it goes to evaluation.json; `holds` is None where nothing was measured."""
        holds = None
        if found.mean is not None:
            holds = (self.mean is None or found.mean >= self.mean) and (
                self.low is None or (found.low is not None and found.low > self.low)
            )
        return {"claim": self.sentence, "needed": self.needed, **found.cell(), "holds": holds}


OURS, PASTED, PAPER = "local_predicted", "nearest_onset_paste", "paper"
CLAIMS = {
    "onsets_over_paper": Claim(
        "Onsets at 100 ms: F1 above the paper's", OURS, PAPER, "onset_f1_100ms", mean=0.3, low=0.2
    ),
    "loudness_over_paper": Claim("Loudness correlation above the paper's", OURS, PAPER, "loudness_correlation", low=0),
    "category_over_paper": Claim("Category accuracy not below the paper's", OURS, PAPER, "category_accuracy", mean=0),
    "onsets_of_real": Claim("Onsets at 100 ms: share of the real F1", OURS, "real", "onset_f1_100ms", "share", 0.9),
    "category_of_real": Claim(
        "Category accuracy: share of that of real sound", OURS, "real", "category_accuracy", "share", 0.9
    ),
    "onsets_over_paste": Claim(
        "Onsets at 100 ms: F1 not below pasted training sounds", OURS, PASTED, "onset_f1_100ms", mean=0
    ),
    "loudness_over_paste": Claim(
        "Loudness correlation above pasted training sounds", OURS, PASTED, "loudness_correlation", low=0
    ),
    # Of a distance less is better.
    "kernel_under_paste": Claim(
        "Kernel distance of pasted training sounds above ours", PASTED, OURS, "kernel_distance", low=0
    ),
}

TIMING = ("onset_f1_100ms", "loudness_correlation")
PAIRS = (
    ("local_predicted", "paper", (*TIMING, "category_accuracy", "kernel_distance")),
    ("local_predicted", "paper_stitched", (*TIMING, "category_accuracy", "seam_discontinuity_db")),
    ("local_true", "paper", (*TIMING, "category_accuracy")),
    ("local_predicted", "category_only", (*TIMING, "category_accuracy")),
    ("local_true", "category_only", (*TIMING, "category_accuracy")),
    ("local_predicted", "same_category_swap", TIMING),
    ("local_predicted", "nearest_onset_paste", (*TIMING, "kernel_distance")),
    ("local_predicted", "local_true", (*TIMING, "category_accuracy")),
)
"""Which row minus which other, in which columns, is worth a paired interval."""
