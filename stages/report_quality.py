"""Sets seeds of both systems and variants of the spotter side by side: numbers, a table and a page."""

import logging
import sys
from pathlib import Path

from soundback.judging import quality
from soundback.judging.intervals import Bootstrap
from soundback.judging.seeds import Seeds, read_evaluations
from soundback.params import Evaluation
from stages import load_params, stage_process

log = logging.getLogger(__name__)


def report_quality(evaluations: Path, spotters: Path, metrics: Path, report: Path, *, params: Evaluation) -> None:
    """Compares what `evaluate_paper` measured of all seeds, and `ablate_spotter` of all variants.

    Args:
      evaluations: folder of all seeds.
      spotters: folder of all variants.
      metrics: JSON file to write.
      report: folder to write: index.html, table.txt.
      params: how the intervals are drawn.
    """
    bootstrap = Bootstrap(params.bootstrap, params.seed)
    seeds = Seeds(*read_evaluations(evaluations), bootstrap).describe()
    spotter = quality.compare(quality.read_scores(spotters), bootstrap)
    quality.write_quality(seeds, spotter, metrics, report)
    log.info(
        "%d seeds compared on %d videos, %d variants of the spotter on %d.",
        seeds["n_seeds"],
        seeds["n_videos"],
        len(spotter["variants"]),
        spotter["n_videos"],
    )


if __name__ == "__main__":
    with stage_process():
        report_quality(*map(Path, sys.argv[1:]), params=load_params().evaluation)
