"""One module per DVC stage, named as in dvc.yaml: input paths, output paths, params in; files out."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from soundback.errors import SoundbackError, TransientError
from soundback.lifetime import die_with_parent, is_orphan


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
