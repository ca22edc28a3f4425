"""One DVC stage as one Prefect task: DVC decides whether it runs, Prefect shows what it says."""

from collections.abc import Mapping
from contextlib import nullcontext

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.graph import trains
from flows.programs import pause, run
from flows.told import Told
from flows.workspace import training_slot
from soundback.errors import SoundbackError

# Not by Prefect's retries: a run that is cancelled would wait until their delay is over.
RETRY_S = (60.0,)
DVC = "import sys; from dvc.cli import main; sys.exit(main())"


class StageError(SoundbackError):
    """A stage of the pipeline failed."""


@task(name="dvc stage", task_run_name="{stage}", cache_policy=NO_CACHE)  # DVC is the cache.
def reproduce(
    stage: str, *, force: bool = False, fresh: bool = False, settings: Mapping[str, str] | None = None
) -> State[None]:
    """Brings one stage up to date, given that those it depends on are.

    Args:
      stage: as in dvc.yaml, e.g. "extract_audio@drum".
      force: run it even if nothing that it depends on changed.
      fresh: DVC was asked already, and there is nothing to do.
      settings: environment variables, how to run.

    Returns:
      A completed state named Skipped (nothing had changed), Restored (DVC knew the result) or Completed (it ran).

    Raises:
      StageError: with the stage's own last words.
    """
    if fresh and not force:
        return _completed(stage, "Skipped")
    log = get_run_logger()
    # Without --wait-for-lock, stages that run at the same time fail on DVC's lock now and then.
    arguments = ["--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
    with training_slot(log.info, pause) if trains(stage) else nullcontext():
        for wait_s in (*RETRY_S, None):
            told = Told(stage, log)
            if run(DVC, arguments, told, settings=settings or {}) == 0:
                return _completed(stage, told.outcome)
            if wait_s is None or not told.may_pass():
                break
            log.warning("The network may be back in a while: %s runs again in %d s.", stage, wait_s)
            pause(wait_s)
    raise StageError(f"{stage} failed: {told.last_words()}")


def _completed(stage: str, outcome: str) -> State[None]:
    return Completed(name=outcome, message=f"{stage}: {outcome.lower()}")
