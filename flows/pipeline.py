"""Rebuilding as Prefect flows: dvc.yaml's graph or a part of it, one task per DVC stage.

`python -m flows.pipeline` runs all of it here with no server configured; `make ui` deploys the flows.
"""

import argparse
import queue
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM, map_scm_exception
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field
from slugify import slugify

from flows import runs, showing
from flows.dvc_tasks import reproduce
from flows.graph import Graph, choose, needed, read_graph, trains, up_to_date
from flows.programs import begin, stop_all
from flows.settings import environment_for, overrides_for
from flows.workspace import git_of_this_run, one_run_at_a_time, settings_of_this_run
from soundback.dataset import prune
from soundback.errors import SoundbackError
from soundback.params import load_params

AT_ONCE = 2

ExecutorName = Literal["as set", "processes", "threads", "dask"]

# Prefect makes a run's form of the types, the defaults and the docstrings; of what may be None it would ask the type.


@dataclass(frozen=True)
class Wishes:
    """What the form of a run says, in the words of `pipeline`."""

    labels: Sequence[str] = ()
    videos_per_label: int = 0
    settings: Sequence[str] = ()
    keep: bool = False
    executor: ExecutorName = "as set"
    dask_address: str = ""
    stages: Sequence[str] = ()
    force: bool = False


@flow(name="pipeline", task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE))  # type: ignore[arg-type]
def pipeline(
    labels: list[str] = [],  # noqa: B006 (nobody changes it)
    videos_per_label: Annotated[int, Field(ge=0)] = 0,
    settings: list[str] = [],  # noqa: B006
    keep: bool = False,
    executor: ExecutorName = "as set",
    dask_address: str = "",
    stages: list[str] = [],  # noqa: B006
    force: bool = False,
) -> State[None]:
    """Brings the dataset, the models and the report up to date with params.yaml, this form and the code.

    Stages that do not depend on each other run side by side, except that only one trains at a time. When one fails,
    those that depend on it are not started, the others go on, and the run fails at the end.

    Args:
      labels: Labels of the vocabulary, by name or MID, at least two. Empty: those in params.yaml.
      videos_per_label: How many videos of each label. 0: as params.yaml says.
      settings: Other settings of params.yaml in DVC's override syntax, e.g. frames.fit=pad or wavenet.cycles=3.
      keep: Leave params.yaml, dvc.lock and data/ as this run makes them. Else they are put back at its end, and
        `dvc exp apply` with the run's name has them again.
      executor: What work on single videos runs on. As set: as SOUNDBACK_EXECUTOR says, or processes.
      dask_address: The scheduler of a Dask cluster that sees this folder, tcp://HOST:8786. Empty: as set.
      stages: Stages to bring up to date, with all that they depend on, e.g. evaluate or extract_audio@drum; a name
        without @ stands for all its labels. Empty: all.
      force: Run the chosen stages even if nothing changed. What they depend on runs if it did.
    """
    wishes = Wishes(labels, videos_per_label, settings, keep, executor, dask_address, stages, force)
    return _rebuild(wishes, lambda stage: True)


@flow(name="dataset", task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE))  # type: ignore[arg-type]
def dataset(
    labels: list[str] = [],  # noqa: B006
    videos_per_label: Annotated[int, Field(ge=0)] = 0,
    settings: list[str] = [],  # noqa: B006
    keep: bool = False,
    executor: ExecutorName = "as set",
    dask_address: str = "",
    stages: list[str] = [],  # noqa: B006
    force: bool = False,
) -> State[None]:
    """Rebuilds the dataset: lists, downloads, extracts sound and frames, finds duplicates. Nothing is trained.

    What is there and fits stays; failed downloads that may work another time are asked for again.

    Args:
      labels: Labels of the vocabulary, by name or MID, at least two. Empty: those in params.yaml.
      videos_per_label: How many videos of each label. 0: as params.yaml says.
      settings: Other settings of params.yaml in DVC's override syntax, e.g. frames.fit=pad or download.clip_s=8.
      keep: Leave params.yaml, dvc.lock and data/ as this run makes them. Else they are put back at its end, and
        `dvc exp apply` with the run's name has them again.
      executor: What work on single videos runs on. As set: as SOUNDBACK_EXECUTOR says, or processes.
      dask_address: The scheduler of a Dask cluster that sees this folder, tcp://HOST:8786. Empty: as set.
      stages: Stages to bring up to date, with all that they depend on, e.g. extract_audio@drum; a name without @ stands
        for all its labels. Empty: all that make the dataset.
      force: Run the chosen stages even if nothing changed. What they depend on runs if it did.
    """
    wishes = Wishes(labels, videos_per_label, settings, keep, executor, dask_address, stages, force)
    return _rebuild(wishes, lambda stage: not trains(stage))


@flow(name="training", task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE))  # type: ignore[arg-type]
def training(
    settings: list[str] = [],  # noqa: B006
    keep: bool = False,
    stages: list[str] = [],  # noqa: B006
    force: bool = False,
) -> State[None]:
    """Trains and evaluates on the dataset; where that is not up to date, it is rebuilt first.

    Args:
      settings: Settings of params.yaml in DVC's override syntax, e.g. wavenet.cycles=3.
      keep: Leave params.yaml, dvc.lock and data/ as this run makes them. Else they are put back at its end, and
        `dvc exp apply` with the run's name has them again.
      stages: Stages to bring up to date, with all that they depend on, e.g. train_wavenet. Empty: all that train.
      force: Run the chosen stages even if nothing changed. What they depend on runs if it did.
    """
    return _rebuild(Wishes(settings=settings, keep=keep, stages=stages, force=force), trains)


def _rebuild(wishes: Wishes, belongs: Callable[[str], bool]) -> State[None]:
    try:
        environment = environment_for(wishes.executor, wishes.dask_address)
        with _workspace():
            overrides = overrides_for(wishes.labels, wishes.videos_per_label, wishes.settings)
            with settings_of_this_run(overrides, keep=wishes.keep):
                # Wrong settings are refused here, before any work starts.
                prune(Path("data"), load_params().labels)
                graph = read_graph()
                chosen = {stage for stage in choose(graph, wishes.stages) if wishes.stages or belongs(stage)}
                before = showing.read_metrics()
                states = _run(needed(graph, chosen), chosen if wishes.force else set(), environment)
                _show(before, states)
                failed = {stage: state for stage, state in states.items() if not state.is_completed()}
                if overrides and not failed:
                    _record(next(iter(states)))
    except SoundbackError as error:  # A sentence for the user is the run's message; its traceback would bury it.
        return Failed(message=str(error))
    return Failed(message=describe_failure(failed)) if failed else Completed(message=describe_success(states))


@contextmanager
def _workspace() -> Iterator[None]:
    """Holds the workspace; a run that a worker started waits for it, where one by hand is refused."""
    deployed = runs.is_deployed()
    if deployed:
        runs.die_with_worker()
    held = []

    def hold(why: str) -> None:
        held.append(why)
        runs.hold(why)

    identity = str(flow_run.id)
    with one_run_at_a_time(runs.described(), identity, hold=hold if deployed else None) as killed:
        if held:
            runs.go_on()
        if killed not in ("", identity):
            runs.mark_killed(killed)
        yield


def _run(graph: Graph, forced: set[str], environment: Mapping[str, str]) -> dict[str, State[None]]:
    """Gives every stage to a task as soon as those it depends on have ended, and waits for all of them.

    Returns:
      The final state of each stage; one whose upstream failed is not completed and was never started.
    """
    fresh = up_to_date(graph, forced)
    futures: dict[str, PrefectFuture[State[None]]] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    order = TopologicalSorter(graph)
    order.prepare()
    ready: list[str] = []
    running: set[str] = set()
    begin()
    try:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()])
            for stage in _startable(ready, running):
                ready.remove(stage)
                running.add(stage)
                upstream = [futures[name] for name in sorted(graph[stage])]
                futures[stage] = reproduce.submit(
                    stage, force=stage in forced, fresh=stage in fresh, settings=environment,
                    return_state=False, wait_for=upstream,
                )  # fmt: skip
                futures[stage].add_done_callback(partial(_put, ended, stage))
            stage = ended.get()
            running.remove(stage)
            order.done(stage)
    except BaseException:  # Cancelled, interrupted or broken: a stage must not outlive its flow.
        stop_all()
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


def _show(before: Mapping[str, float], states: Mapping[str, State[None]]) -> None:
    """Puts what the run made on Prefect's pages."""
    if any(state.is_completed() and trains(stage) for stage, state in states.items()):
        showing.show_metrics(before, showing.read_metrics())
        showing.show_pictures()
    showing.show_report()


def _record(stage: str) -> None:
    """Notes the run among DVC's experiments, by the name that Prefect gives it.

    Args:
      stage: one that is up to date. `dvc exp save` commits it once more; without one it commits them all, those that
        the run left out included, as if what is there of them were made of what is there now.
    """
    log = get_run_logger()
    name = slugify(str(flow_run.name))
    with Repo() as repo:
        if isinstance(repo.scm, NoSCM):
            log.warning("This folder is no git repository, so `dvc exp show` cannot have this run.")
            return
        try:
            with git_of_this_run(), map_scm_exception():
                repo.experiments.save(targets=[stage], name=name, force=True)
        except DvcException as error:
            log.warning("`dvc exp save` failed: %s", error)
            return
    log.info("`dvc exp show` has this run as %s; `dvc exp apply %s` has its settings again.", name, name)


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
        state = pipeline(stages=arguments.stages, force=arguments.force, return_state=True)
    except KeyboardInterrupt:
        sys.exit("Stopped; the next run goes on from there.")
    if not state.is_completed():
        sys.exit(state.message)


if __name__ == "__main__":
    main()
