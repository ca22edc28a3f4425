"""dvc.yaml as a graph: what depends on what, which part of it is wanted, and what is up to date."""

from collections.abc import Sequence
from graphlib import TopologicalSorter

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from rapidfuzz import process

from soundback.errors import ParamsError

Graph = dict[str, set[str]]
"""Each stage with those it depends on directly."""


def read_graph() -> Graph:
    """Reads what depends on what from the dvc.yaml of the current folder (not from those in folders below)."""
    with Repo() as repo:
        graph = repo.index.graph
        ours = [stage for stage in graph if getattr(stage, "path_in_repo", None) == "dvc.yaml"]
        return {stage.addressing: {upstream.addressing for upstream in graph.successors(stage)} for stage in ours}


def choose(graph: Graph, names: Sequence[str]) -> set[str]:
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


def up_to_date(graph: Graph, forced: set[str]) -> set[str]:
    """Asks DVC, once for all stages, for which of them there is nothing to do, nor for any that they depend on.

    Where DVC cannot tell, because somebody else is at work in the workspace, none is.

    Args:
      graph: the stages.
      forced: those that are to run in any case.
    """
    try:
        with Repo() as repo:
            # Not by name: DVC would read dvc.lock once for each.
            changed = set(repo.status(targets=["dvc.yaml"]))
    except (DvcException, LockError):
        return set()
    fresh: set[str] = set()
    for stage in TopologicalSorter(graph).static_order():
        if stage not in changed | forced and graph[stage] <= fresh:
            fresh.add(stage)
    return fresh


def trains(stage: str) -> bool:
    """Whether a stage takes the whole machine, so that two of them would only slow each other down."""
    return stage.startswith("train_") or stage == "evaluate"
