"""Sets the variants of the spotter side by side: numbers, a table and a page."""

import logging
import sys
from pathlib import Path

from soundback.judging import quality
from soundback.judging.intervals import Bootstrap
from soundback.params import Evaluation, load_params
from stages import stage_process

log = logging.getLogger(__name__)


def report_quality(spotters: Path, metrics: Path, report: Path, *, params: Evaluation) -> None:
    """Compares what `ablate_spotter` measured of all variants.

    Args:
      spotters: folder of all variants.
      metrics: JSON file to write.
      report: folder to write: index.html, table.txt.
      params: how the intervals are drawn.
    """
    compared = quality.compare(quality.read_scores(spotters), Bootstrap(params.bootstrap, params.seed))
    quality.write_quality(compared, metrics, report)
    log.info("%d variants of the spotter compared on %d videos.", len(compared["variants"]), compared["n_videos"])


if __name__ == "__main__":
    with stage_process():
        report_quality(*map(Path, sys.argv[1:]), params=load_params().evaluation)
