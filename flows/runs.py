"""This run and the one before it, as Prefect's server knows them."""

import os
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run
from prefect.states import Crashed, Running

from soundback.lifetime import die_with_parent

HELD = "Held"


def described() -> str:
    """What to call this run in a sentence."""
    of = f" of {flow_run.flow_name}" if flow_run.flow_name else ""
    return f"run {flow_run.name!r}{of}"


def is_deployed() -> bool:
    """Whether a worker started this run, so that nobody sits in front of it."""
    return deployment.id is not None


def die_with_worker() -> None:
    """Ends this run when its worker ends, which then is not there to do it; also if it has ended by now."""
    worker = os.environ.get("SOUNDBACK_WORKER")  # from flows/ui.py; whoever starts a worker by hand need not say it
    die_with_parent(int(worker) if worker else None)


def hold(why: str) -> None:
    """Shows that this run waits, and for what."""
    get_run_logger().info(why)
    _set_state(UUID(flow_run.id), Running(name=HELD, message=why))


def go_on() -> None:
    """Shows that this run waits no longer."""
    _set_state(UUID(flow_run.id), Running())


def mark_killed(identity: str) -> None:
    """Has a run that was killed with its worker, and so is shown as running for ever, be shown as crashed."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(identity)).state
        except (ObjectNotFound, ValueError):  # Of another server, or of none.
            return
    if state is not None and not state.is_final():
        _set_state(UUID(identity), Crashed(message="It was killed, and the worker that would have said so was, too."))


def _set_state(identity: UUID, state: State[None]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(identity, state, force=True)
