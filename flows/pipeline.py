"""The whole pipeline as one Prefect flow: dvc.yaml's graph, one task per DVC stage.

`python -m flows.pipeline` runs it here with no server configured; `make ui` deploys it.
"""

import argparse
import fcntl
import os
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated

from dvc.repo import Repo
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field
from rapidfuzz import process

from flows.dvc_tasks import reproduce, stop_stages
from soundback.dataset import prune
from soundback.errors import ParamsError, SoundbackError
from soundback.params import load_params

AT_ONCE = 2
LOCK = Path(".dvc/tmp/flow.lock")

Graph = dict[str, set[str]]
"""Each stage with those it depends on directly."""


class BusyError(SoundbackError):
    """Another run holds the workspace."""


@flow(name="pipeline", task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE))  # type: ignore[arg-type]
def pipeline(
    stages: Annotated[
        list[str] | None,
        Field(
            description="Stages to bring up to date, with all that they depend on, e.g. evaluate or "
            "extract_audio@drum; a name without @ stands for all its labels. Empty: every stage."
        ),
    ] = None,
    force: Annotated[
        bool, Field(description="Run the chosen stages even if nothing changed; what they depend on runs if it did.")
    ] = False,
) -> State[None]:
    """Brings the dataset, the models and the report up to date with params.yaml and the code.

    Stages that do not depend on each other run side by side, except that only one trains at a time. When one fails,
    those that depend on it are not started, the others go on, and the run fails at the end.
    """
    try:
        with one_run_at_a_time():
            # Wrong settings are refused here, before any work starts.
            prune(Path("data"), load_params().labels)
            graph = read_graph()
            chosen = choose(graph, stages)
            states = _run(needed(graph, chosen), chosen if force else set())
    except SoundbackError as error:  # A sentence for the user is the run's message; its traceback would bury it.
        return Failed(message=str(error))
    if failed := {stage: state for stage, state in states.items() if not state.is_completed()}:
        return Failed(message=describe_failure(failed))
    return Completed(message=describe_success(states))


def read_graph() -> Graph:
    """Reads what depends on what from the dvc.yaml of the current folder (not from those in folders below)."""
    with Repo() as repo:
        graph = repo.index.graph
        ours = [stage for stage in graph if getattr(stage, "path_in_repo", None) == "dvc.yaml"]
        return {stage.addressing: {upstream.addressing for upstream in graph.successors(stage)} for stage in ours}


def choose(graph: Graph, names: list[str] | None) -> set[str]:
    """Finds the stages that the names stand for.

    Raises:
      ParamsError: naming what there is instead of an unknown stage.
    """
    if not names:
        return set(graph)
    chosen: set[str] = set()
    for name in names:
        found = {stage for stage in graph if name in (stage, stage.split("@")[0])}
        if not found:
            nearest, *_ = process.extractOne(name, list(graph))
            raise ParamsError(f"There is no stage {name!r} in dvc.yaml; did you mean {nearest!r}?")
        chosen |= found
    return chosen


def needed(graph: Graph, chosen: set[str]) -> Graph:
    """Cuts the graph down to some stages and all that they depend on."""
    found: Graph = {}
    waiting = list(chosen)
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found[stage] = graph[stage]
            waiting.extend(graph[stage])
    return found


def trains(stage: str) -> bool:
    """Whether a stage takes the whole machine, so that two of them would only slow each other down."""
    return stage.startswith("train_") or stage == "evaluate"


def _run(graph: Graph, forced: set[str]) -> dict[str, State[None]]:
    """Gives every stage to a task as soon as those it depends on have ended, and waits for all of them.

    Returns:
      The final state of each stage; one whose upstream failed is not completed and was never started.
    """
    futures: dict[str, PrefectFuture[State[None]]] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    order = TopologicalSorter(graph)
    order.prepare()
    ready: list[str] = []
    running: set[str] = set()
    try:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()])
            for stage in _startable(ready, running):
                ready.remove(stage)
                running.add(stage)
                upstream = [futures[name] for name in sorted(graph[stage])]
                futures[stage] = reproduce.submit(stage, stage in forced, return_state=False, wait_for=upstream)
                futures[stage].add_done_callback(partial(_put, ended, stage))
            stage = ended.get()
            running.remove(stage)
            order.done(stage)
    except BaseException:  # Cancelled, interrupted or broken: a stage must not outlive its flow.
        for _ in running:
            stop_stages()
        raise
    return {stage: _final_state(future) for stage, future in futures.items()}


def _final_state(future: PrefectFuture[State[None]]) -> State[None]:
    future.wait()  # Until then `state` asks the server, which learns of it a little later.
    return future.state


def _put(ended: queue.SimpleQueue[str], stage: str, _: PrefectFuture[State[None]]) -> None:
    ended.put(stage)


def _startable(ready: list[str], running: set[str]) -> list[str]:
    """Picks from the stages whose turn it is: at most `AT_ONCE` in all, at most one that trains."""
    picked: list[str] = []
    for stage in ready:
        under_way = [*running, *picked]
        if len(under_way) < AT_ONCE and not (trains(stage) and any(map(trains, under_way))):
            picked.append(stage)
    return picked


@contextmanager
def one_run_at_a_time() -> Iterator[None]:
    """Holds the workspace for this run; the system frees it however the run ends.

    Raises:
      BusyError: naming the run that holds it.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BusyError(
                f"Another run is at work in {Path.cwd()}: {lock.read().strip()}. Wait for it, or cancel it."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, started {datetime.now():%Y-%m-%d %H:%M:%S}")
        lock.flush()
        yield


def describe_failure(failed: dict[str, State[None]]) -> str:
    """Says which stages failed, in whose words, and which were therefore not started."""
    broken = {stage: state for stage, state in failed.items() if not state.is_pending()}
    waiting = sorted(set(failed) - set(broken))
    lines = [f"{len(broken)} stage(s) failed: {', '.join(sorted(broken))}."]
    if waiting:
        lines.append(f"Not started, because they depend on them: {', '.join(waiting)}.")
    lines += [_words_of(state) for _, state in sorted(broken.items())]
    return "\n".join(lines)


def _words_of(state: State[None]) -> str:
    """What a failed task raised; where it did not get as far as that, what Prefect says of it."""
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, SoundbackError) else str(state.message)


def describe_success(states: dict[str, State[None]]) -> str:
    """Counts the stages by how they ended, e.g. "24 skipped, 5 completed"."""
    names = [str(state.name) for state in states.values()]
    return ", ".join(f"{names.count(name)} {name.lower()}" for name in sorted(set(names)))


def main() -> None:
    """Runs the flow from the command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=pipeline.description)
    parser.add_argument("stages", nargs="*", help="as in dvc.yaml; none: all")
    parser.add_argument("--force", action="store_true", help="run the named stages even if nothing changed")
    arguments = parser.parse_args()
    try:
        state = pipeline(arguments.stages or None, arguments.force, return_state=True)
    except KeyboardInterrupt:
        sys.exit("Stopped; the next run goes on from there.")
    if not state.is_completed():
        sys.exit(state.message)


if __name__ == "__main__":
    main()
