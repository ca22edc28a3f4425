"""Lists which videos YouTube-8M has under a label, and which split each belongs to."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from rapidfuzz import fuzz, process

from soundback import schemas
from soundback.errors import ParamsError
from soundback.params import Dataset, DemoSource, YouTube8MSource, load_params
from soundback.progress import show_progress
from soundback.sources import youtube8m
from stages import stage_process

log = logging.getLogger(__name__)


def list_videos(
    key: str,
    catalog: Path,
    *,
    source: DemoSource | YouTube8MSource,
    labels: Mapping[str, str],
    dataset: Dataset,
) -> None:
    """Writes one `schemas.CATALOG` row per sampled video of a label, in the order of the sample.

    Args:
      key: of the label in `labels`.
      catalog: the table to write.
      source: where to ask.
      labels: name, MID or index of the label of each key.
      dataset: how many videos, drawn how, split how.

    Raises:
      ParamsError: if there is no such key.
      SourceError: if the label is unknown or the source does not answer; nothing is written then.
    """
    if key not in labels:
        nearest = process.extractOne(key, list(labels), scorer=fuzz.ratio)
        raise ParamsError(f"params.yaml has no label {key!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "."))
    with youtube8m.open_endpoints(source) as endpoints, show_progress(f"Listing {labels[key]}") as progress:
        label = youtube8m.resolve_label(youtube8m.read_vocabulary(endpoints), labels[key])
        ids = youtube8m.read_label_index(label, endpoints)
        sample = youtube8m.sample_ids(ids, dataset.videos_per_label, seed=dataset.seed)
        listed = youtube8m.look_up_ids(sample, endpoints, progress=progress)
    schemas.write_table([_row(each, label, dataset) for each in listed], schemas.CATALOG, catalog)
    n_gone = sum(each.reason is not None for each in listed)
    log.info(
        f"{len(listed)} videos listed under {label.display_name} ({label.mid}): "
        f"{len(listed) - n_gone} ok, {n_gone} gone"
        + (
            f"; {dataset.videos_per_label} were wanted, the index has {len(ids)}"
            * (len(ids) < dataset.videos_per_label)
        )
    )


def _row(listed: youtube8m.Listed, label: youtube8m.Label, dataset: Dataset) -> dict[str, object]:
    gone = listed.reason is not None
    return {
        "video_id": listed.video_id,
        "address": None if gone else listed.video_id,
        "label": label.display_name,
        "label_mid": label.mid,
        "split": youtube8m.split_of(
            listed.video_id, validation_share=dataset.validation_share, test_share=dataset.test_share
        ),
        "status": "gone" if gone else "ok",
        "reason": listed.reason,
    }


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        list_videos(sys.argv[1], Path(sys.argv[2]), source=params.source, labels=params.labels, dataset=params.dataset)
