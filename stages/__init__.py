"""One module per DVC stage, named as in dvc.yaml: input paths, output paths, params in; files out."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rapidfuzz import fuzz, process

from soundback import params
from soundback.errors import LabelError, ParamsError, SoundbackError, TransientError
from soundback.executors import keep_workers
from soundback.lifetime import die_with_parent, is_orphan

log = logging.getLogger(__name__)

PARAMS = Path("params.yaml")
LOCKS = (Path("dvc.lock"), Path("paper/dvc.lock"), Path("quality/dvc.lock"))
"""In which DVC writes what was built from what. A stage that reads them asks for its own inputs, which stand there."""

OTHER_PARAMS, CHANGED = "--params", "--set"
"""What a command begins with if its stage is to read other params than the rest of the pipeline: first a file, then
settings that differ from it, as SECTION.NAME=VALUE each. DVC sees both: they are part of the command."""

NETWORKS = ("classifier", "spotter", "wavenet")
"""Sections in which another params file may say what it likes: all else has made, or judges, what lies in data/."""

if "--multiprocessing-fork" in sys.orig_argv:
    # A process of a stage's pool, which imports the stage before all else. That takes seconds, in which the stage may
    # be killed.
    die_with_parent()
    if is_orphan():
        sys.exit(1)


@contextmanager
def stage_process() -> Iterator[None]:
    """What every stage does when run as a program: log, die with DVC, and end in a sentence rather than a traceback."""
    die_with_parent()
    if "DVC_STAGE" in os.environ and is_orphan():
        # DVC, which says so of every stage, was killed before the kernel could be asked: Python takes a while to start.
        sys.exit("DVC has ended.")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        yield
    except TransientError as error:
        print(error, file=sys.stderr)  # noqa: T201 (as `sys.exit` does, which then leaves no choice of the status)
        sys.exit(error.exit_status)
    except SoundbackError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def load_params() -> params.Params:
    """Reads params.yaml, or what the command begins with, which is taken off it: `--params FILE`, `--set NAME=VALUE`.

    Raises:
      ParamsError: naming every setting that is wrong, or the sections in which the file must agree with params.yaml and
        does not.
    """
    path = Path(told[0]) if (told := _take(OTHER_PARAMS, at_most=1)) else PARAMS
    changes = _take(CHANGED)
    read = params.load_params(path)
    if path != PARAMS:
        ours = params.load_params(PARAMS)
        shared = [name for name in params.Params.model_fields if name not in NETWORKS]
        if different := [name for name in shared if getattr(ours, name) != getattr(read, name)]:
            raise ParamsError(
                f"{path} and {PARAMS} differ in {', '.join(different)}. What lies in data/ was made as {PARAMS} says, "
                f"and is used here: copy these sections from {PARAMS} to {path}."
            )
    return params.load_params(path, changes) if changes else read


def _take(option: str, at_most: int | None = None) -> list[str]:
    """Takes an option off the beginning of the command, as often as it stands there, and gives what was told of it."""
    told: list[str] = []
    while sys.argv[1:2] == [option] and len(told) != at_most:
        if len(sys.argv) < 3:
            raise ParamsError(f"{option} names {'no file' if option == OTHER_PARAMS else 'no setting'}.")
        told.append(sys.argv[2])
        del sys.argv[1:3]
    return told


def each_label(labels: Iterable[str], branch: str, work: Callable[[str], None]) -> None:
    """Works on every label of a branch in turn; of one that cannot be had, the others do not suffer.

    Args:
      labels: folders of all labels.
      branch: of the stage: the folder of a label, or of several.
      work: called with the folder of each.

    Raises:
      ParamsError: if there is no such branch.
      LabelError: after all others, if some labels cannot be had.
    """
    labels = list(labels)
    ours = [label for label in labels if label.split("/")[0] == branch]
    if not ours:
        nearest = process.extractOne(branch, labels, scorer=fuzz.ratio)
        raise ParamsError(
            f"params.yaml has no label {branch!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else ".")
        )
    if len(ours) == 1:
        work(ours[0])
        return
    failed = []
    with keep_workers():
        for label in ours:
            log.info("%s", label)
            try:
                work(label)
            except LabelError as error:
                failed.append(f"{label}: {error}")
    if failed:
        raise LabelError("\n".join(failed))
