"""Labels that share a branch of dvc.yaml: its stages work on each of them (tests/test_smoke.py compares the data)."""

import logging
import os

import pytest

from soundback.errors import LabelError, ParamsError, TransientError
from soundback.executors import open_workers
from stages import each_label

LABELS = {"drum": "Drum", "wet/rain": "Rain", "wet/fall": "Waterfall"}


def test_a_stage_works_on_each_label_of_its_branch_and_no_other() -> None:
    done: list[str] = []
    each_label(LABELS, "wet", done.append)
    each_label(LABELS, "drum", done.append)
    assert done == ["wet/rain", "wet/fall", "drum"]
    with pytest.raises(ParamsError, match="no label 'dum'; did you mean 'drum'"):
        each_label(LABELS, "dum", done.append)


def test_a_label_of_which_nothing_can_be_had_keeps_no_other_of_its_branch_from_it(caplog) -> None:
    caplog.set_level(logging.INFO)
    done: list[str] = []

    def work(label: str) -> None:
        if label == "wet/rain":
            raise LabelError("Nothing can be had.")
        done.append(label)

    with pytest.raises(LabelError, match=r"^wet/rain: Nothing can be had\.$"):
        each_label(LABELS, "wet", work)
    assert done == ["wet/fall"]


def test_the_labels_of_a_branch_share_their_workers(monkeypatch) -> None:
    monkeypatch.setenv("SOUNDBACK_WORKERS", "1")
    used: set[int] = set()

    def work(label: str) -> None:
        with open_workers() as workers:
            used.update(workers.executor.submit(os.getpid).result() for _ in range(4))

    each_label(LABELS, "wet", work)
    assert os.getpid() not in used
    assert len(used) == 1


def test_a_source_that_refuses_is_not_asked_for_the_other_labels() -> None:
    asked: list[str] = []

    def work(label: str) -> None:
        asked.append(label)
        raise TransientError("Too many requests.")

    with pytest.raises(TransientError):
        each_label(LABELS, "wet", work)
    assert asked == ["wet/rain"]
