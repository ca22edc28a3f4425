"""Whatever is killed, whenever: nobody is left, the workspace is put back, and the next run finishes the work."""

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from tests.clones import Clone, free_port, make_clone
from tests.processes import processes_in, still_running

SEED = 12
VIDEOS = 4
"""Of each label, in params.yaml."""

KINDS = {
    "dvc": ("dvc.cli",),
    "stage": ("-m stages.",),
    "flow": ("prefect.engine", "prefect.runner"),
    "worker": ("prefect worker",),
    "server": ("prefect server",),
}
KEEPER = ("flows.workspace",)
"""What puts back what a killed run changed, and ends then."""

HOLD_FOR_A_MOMENT = "from flows.workspace import one_run_at_a_time\nwith one_run_at_a_time(hold=print): pass"

ORPHANS_S = 5.0
"""As in test_kill: most stages last longer, so that one which only comes to its end by itself is found."""

START_S = 300.0
PUT_BACK_S = 120.0
"""A DVC that was killed counts as being at work until the system has taken note of its end."""


@dataclass
class Chaos:
    """A clone with a server and a worker, in which things get killed.

    Attributes:
      clone: the project.
      port: of the server.
      chance: decides what, and when.
      stages: to be built, with all that they depend on; none: the whole dataset.
      latest_s: by then, after a run's process is there, it or something else is killed.
      built: stages that were as dvc.lock says before the run under way began, if that has settings of its own.
    """

    clone: Clone
    port: int
    chance: random.Random
    stages: tuple[str, ...]
    latest_s: float
    params: bytes = field(init=False)
    built: set[str] | None = None

    def __post_init__(self) -> None:
        self.params = (self.clone.root / "params.yaml").read_bytes()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def kill_one(self, kind: str) -> None:
        """Kills a process of a kind while a run is under way, and looks at what is left."""
        self.start_ui()
        victim = None
        while victim is None:
            if not self.running("flow"):
                self.order_any()
                wait_for(lambda: bool(self.running("flow")), within_s=START_S)
            time.sleep(self.chance.uniform(0, self.latest_s))
            victim = self.find(kind)
        under_way = sorted(command.split()[2] for command in commands_of(self.running("stage")).values())
        tree = [victim, *victim.children(recursive=True)]
        spared = those(self.clone, KEEPER)
        victim.kill()
        settings = "settings of its own" if self.built is not None else "those of params.yaml"
        print(f"{time.strftime('%X')} {kind} killed, at work {under_way}, {settings}", flush=True)
        left = still_running([each for each in tree if each not in spared], within_s=ORPHANS_S)
        assert not left, f"outlived the {kind}: {list(commands_of(left).values())}"
        if kind in ("flow", "worker"):
            self.check_that_all_is_put_back()

    def start_ui(self) -> None:
        # A file: what the server and the worker inherit of a pipe would stay open for as long as they run.
        with (self.clone.root / ".prefect-started").open("w+") as printed:
            command = ["python", "-m", "flows.ui", "start", "--port", str(self.port)]
            environment = self.clone.environment
            done = subprocess.run(
                command,
                cwd=self.clone.root,
                env=environment,
                stdout=printed,
                stderr=printed,
                check=False,
                timeout=START_S,
            )
            printed.seek(0)
            assert done.returncode == 0, printed.read()

    def order_any(self) -> None:
        """Orders a run with or without settings of its own, forced or not."""
        own = self.chance.random() < 0.5
        self.built = self.up_to_date() if own else None
        settings = {"videos_per_label": VIDEOS + 1} if own else {}
        self.order(force=self.chance.random() < 0.3, **settings)

    def order(self, **parameters: object) -> str:
        """Orders a run of the dataset; gives its id."""
        order = {"parameters": {"stages": self.stages, **parameters}, "state": {"type": "SCHEDULED"}}
        deployment = requests.get(f"{self.api}/deployments/name/dataset/dataset-now", timeout=30).json()["id"]
        address = f"{self.api}/deployments/{deployment}/create_flow_run"
        created: list[requests.Response] = []

        def create() -> bool:
            created.append(requests.post(address, json=order, timeout=30))
            return created[-1].ok

        # A server that was killed at work has its database to put in order.
        wait_for(create, within_s=START_S)
        return str(created[-1].json()["id"])

    def running(self, kind: str) -> list[psutil.Process]:
        return those(self.clone, KINDS[kind])

    def find(self, kind: str) -> psutil.Process | None:
        """One of a kind; between two stages there is none: the next one, then, unless the run ends before."""
        while self.running("flow"):
            if running := self.running(kind):
                return self.chance.choice(running)
            time.sleep(0.02)
        return None

    def check_that_all_is_put_back(self) -> None:
        for kind in ("flow", "dvc", "stage"):
            left = still_running(self.running(kind), within_s=ORPHANS_S)
            assert not left, f"outlived its flow: {list(commands_of(left).values())}"
        saved = self.clone.root / ".dvc/tmp/flow-saved"
        wait_for(lambda: not saved.exists() and not those(self.clone, KEEPER), within_s=PUT_BACK_S)
        assert (self.clone.root / "params.yaml").read_bytes() == self.params
        assert self.built is None or self.built <= self.up_to_date()

    def up_to_date(self) -> set[str]:
        """The stages that are as dvc.lock says; what a DVC that was killed left broken is cleared away as by a run."""
        self.clone.run("python", "-c", HOLD_FOR_A_MOMENT)
        lock = self.clone.root / "dvc.lock"
        known = set(yaml.safe_load(lock.read_text())["stages"]) if lock.exists() else set()
        return known - set(json.loads(self.clone.run("dvc", "status", "--json", *known))) if known else known

    def states(self) -> dict[str, dict[str, Any]]:
        """The state of every run there was, by its id."""
        runs = requests.post(f"{self.api}/flow_runs/filter", json={}, timeout=30).json()
        return {run["id"]: run["state"] for run in runs}


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Chaos]:
    clone = make_small_clone(tmp_path)
    yield Chaos(clone, free_port(), random.Random(SEED), stages=(), latest_s=12.0)
    clone.run("python", "-m", "flows.ui", "stop")


def make_small_clone(root: Path) -> Clone:
    """A clone of as few videos as will do, whose state git has on a branch."""
    clone = make_clone(root, profile="smoke")
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["source"]["videos_per_label"] = VIDEOS + 1
    params["dataset"]["videos_per_label"] = VIDEOS
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    (root / "dvc.lock").unlink()  # It speaks of other params, and of data that is not here.
    clone.run("git", "add", "--all")
    clone.run("git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--message", "all")
    return clone


@pytest.mark.timeout(1200)  # two minutes where nobody else is at work
def test_killed_five_times_the_dataset_comes_out_as_undisturbed(chaos: Chaos, tmp_path_factory: Any) -> None:
    chaos.stages, chaos.latest_s = ("extract_frames", "find_duplicates"), 6.0
    check_that_it_comes_out_as_undisturbed(chaos, tmp_path_factory.mktemp("undisturbed"), n_kills=5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_fifty_times_the_dataset_comes_out_as_undisturbed(chaos: Chaos, tmp_path_factory: Any) -> None:
    check_that_it_comes_out_as_undisturbed(chaos, tmp_path_factory.mktemp("undisturbed"), n_kills=50)


def check_that_it_comes_out_as_undisturbed(chaos: Chaos, elsewhere: Path, *, n_kills: int) -> None:
    undisturbed = make_small_clone(elsewhere)
    stages = chaos.stages or ("extract_audio", "extract_frames", "find_duplicates")
    repro = undisturbed.start("dvc", "repro", *stages)  # meanwhile
    # Each kind as often as the others, in any order.
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(n_kills)]
    chaos.chance.shuffle(kinds)
    for kind in kinds:
        chaos.kill_one(kind)

    chaos.start_ui()
    last = chaos.order()
    wait_for(lambda: chaos.states()[last]["type"] in ("COMPLETED", "FAILED", "CRASHED"), within_s=START_S)
    assert chaos.states()[last]["type"] == "COMPLETED", chaos.states()[last]
    shown = {state["name"] for state in chaos.states().values()}
    assert shown <= {"Completed", "Failed", "Crashed"}, "no run is shown as running for ever"
    chaos.clone.run("python", "-m", "flows.ui", "stop")
    assert not still_running(processes_in(chaos.clone.root), within_s=10)

    printed, _ = repro.communicate()
    assert repro.returncode == 0, printed
    # The order of what dvc.lock says is that in which stages ended first.
    built, wanted = (yaml.safe_load((clone.root / "dvc.lock").read_text()) for clone in (chaos.clone, undisturbed))
    assert built == wanted
    assert chaos.up_to_date() == set(wanted["stages"])
    assert files_in(chaos.clone) == files_in(undisturbed)
    check_that_nothing_is_held(chaos)


def files_in(clone: Clone) -> set[str]:
    """All there is under data, hidden files and leftovers included; what they hold, `dvc status` compares.

    But for TensorBoard's logs, which are named after their time and are no output.
    """
    data = clone.root / "data"
    names = {path.relative_to(data) for path in data.rglob("*") if path.is_file() and path.name != ".gitignore"}
    return {str(name) for name in names if name.parts[0] != "tensorboard"}


def check_that_nothing_is_held(chaos: Chaos) -> None:
    root = chaos.clone.root
    assert (root / "params.yaml").read_bytes() == chaos.params
    assert not (root / ".dvc/tmp/flow.lock").read_text()
    assert not (root / ".dvc/tmp/flow-saved").exists()
    note = root / ".dvc/tmp/rwlock"
    held = json.loads(note.read_text()) if note.exists() else {}
    assert not held.get("write")
    # A DVC that is killed leaves word of what it reads; others drop it once they see that it has ended.
    readers = {each["pid"] for readers in held.get("read", {}).values() for each in readers}
    assert not {pid for pid in readers if psutil.pid_exists(pid)}
    assert chaos.clone.run("git", "symbolic-ref", "HEAD").startswith("refs/heads/"), "git is on its branch"
    assert not chaos.clone.run("git", "stash", "list")
    # All that git had is as it was.
    assert not chaos.clone.run("git", "status", "--porcelain", "--untracked-files=no")


def wait_for(condition: Callable[[], bool], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def those(clone: Clone, words: tuple[str, ...]) -> list[psutil.Process]:
    """The processes of the clone in whose command line one of these is."""
    commands = commands_of(processes_in(clone.root))
    return [process for process, command in commands.items() if any(word in command for word in words)]


def commands_of(processes: list[psutil.Process]) -> dict[psutil.Process, str]:
    """The command lines of those that still run."""
    commands = {}
    for process in processes:
        with suppress(psutil.Error):
            commands[process] = " ".join(process.cmdline())
    return commands
