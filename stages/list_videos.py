"""Lists which videos there are under a label, and which split each belongs to."""

import logging
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from soundback import schemas
from soundback.errors import LabelError
from soundback.outputs import check_case_kept
from soundback.params import Dataset, DemoSource, Source, TableSource, YouTube8MSource, load_params
from soundback.progress import Progress, show_progress
from soundback.sources import own_videos, youtube8m
from soundback.sources.sampling import sample_ids, split_of
from stages import each_label, stage_process

log = logging.getLogger(__name__)


def list_videos(
    key: str,
    table: Path,
    catalog: Path,
    *,
    source: Source,
    labels: Mapping[str, str],
    dataset: Dataset,
) -> None:
    """Writes one `schemas.CATALOG` row per sampled video of a label, in the order of the sample.

    Args:
      key: of the label in `labels`.
      table: of one's own videos; read if the source is a table.
      catalog: the table to write.
      source: where to ask.
      labels: of each key, the label: for YouTube-8M its name, MID or index, for a table what stands there.
      dataset: how many videos, drawn how, split how.

    Raises:
      LabelError: if none of its videos can be had; nothing is written then.
      SourceError: if the label is unknown or the source does not answer; nor is it then.
    """
    with show_progress(f"Listing {labels[key]}") as progress:
        if isinstance(source, TableSource):
            rows = own_videos.list_label(table, labels[key], dataset=dataset, progress=progress)
        else:
            rows = _ask_youtube8m(labels[key], source, dataset, progress)
    if not any(row["status"] == "ok" for row in rows):
        (reason, n), *_ = Counter(str(row["reason"]) for row in rows).most_common(1) or [("none is listed", 0)]
        raise LabelError(
            f"None of the {len(rows)} videos under {labels[key]} can be had; of {n} it is said: {reason}. "
            "Nothing was written: run again later, or choose another label in params.yaml."
        )
    check_case_kept(catalog.parent, [str(row["video_id"]) for row in rows if row["status"] == "ok"])
    schemas.write_table(rows, schemas.CATALOG, catalog)
    n_gone = sum(row["status"] == "gone" for row in rows)
    mid = f" ({rows[0]['label_mid']})" if rows[0]["label_mid"] else ""
    log.info(
        f"{len(rows)} videos listed under {rows[0]['label']}{mid}: {len(rows) - n_gone} ok, {n_gone} gone"
        + (f"; {dataset.videos_per_label} were wanted, there are no more" * (len(rows) < dataset.videos_per_label))
    )


def _ask_youtube8m(
    wanted: str, source: DemoSource | YouTube8MSource, dataset: Dataset, progress: Progress
) -> list[dict[str, object]]:
    with youtube8m.open_endpoints(source) as endpoints:
        label = youtube8m.resolve_label(youtube8m.read_vocabulary(endpoints), wanted)
        ids = youtube8m.read_label_index(label, endpoints)
        sample = sample_ids(ids, dataset.videos_per_label, seed=dataset.seed)
        listed = youtube8m.look_up_ids(sample, endpoints, progress=progress)
    return [_row(each, label, dataset) for each in listed]


def _row(listed: youtube8m.Listed, label: youtube8m.Label, dataset: Dataset) -> dict[str, object]:
    gone = listed.reason is not None
    return {
        "video_id": listed.video_id,
        "address": None if gone else listed.video_id,
        "label": label.display_name,
        "label_mid": label.mid,
        "split": split_of(listed.video_id, validation_share=dataset.validation_share, test_share=dataset.test_share),
        "status": "gone" if gone else "ok",
        "reason": listed.reason,
    }


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        branch, (table, catalogs) = sys.argv[1], map(Path, sys.argv[2:])
        each_label(
            params.labels,
            branch,
            lambda label: list_videos(
                label,
                table,
                catalogs / label / "catalog.parquet",
                source=params.source,
                labels=params.labels,
                dataset=params.dataset,
            ),
        )
