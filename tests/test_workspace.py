"""A run's hold on the workspace, and what is put back after it, however it ended."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from flows import PROJECT, workspace
from flows.settings import overrides_for
from flows.workspace import BusyError, one_run_at_a_time, settings_of_this_run, training_slot
from soundback.errors import ParamsError, SettingsError
from soundback.params import load_params

OVERRIDES = ["dataset.videos_per_label=7", "frames.fit=pad"]
RUN = (
    "import pathlib, time; from flows.workspace import one_run_at_a_time, settings_of_this_run\n"
    f"with one_run_at_a_time('the first', 'its id'), settings_of_this_run({OVERRIDES}, keep=False):\n"
    "    pathlib.Path('dvc.lock').write_text('changed'); print('ready', flush=True); time.sleep(60)\n"
)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "TRAINING_SLOT", tmp_path / "slot")
    shutil.copy(PROJECT / "profiles" / "smoke.yaml", "params.yaml")
    Path("dvc.lock").write_text("before")
    return tmp_path


def files() -> tuple[bytes, bytes]:
    return Path("params.yaml").read_bytes(), Path("dvc.lock").read_bytes()


def start_run(code: str = RUN) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    return run


def wait_until(files_are: tuple[bytes, bytes]) -> None:
    deadline = time.monotonic() + 10
    while files() != files_are:
        assert time.monotonic() < deadline, "the files were put back"
        time.sleep(0.05)


def test_a_run_has_its_own_settings_and_puts_the_old_ones_back():
    before = files()
    with one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=False):
        params = load_params()
        assert (params.dataset.videos_per_label, params.frames.fit) == (7, "pad")
        Path("dvc.lock").write_text("after")
    assert files() == before
    assert not workspace.SAVED.exists()


def test_comments_in_the_params_survive_what_is_kept():
    with one_run_at_a_time(), settings_of_this_run(["dataset.videos_per_label=7"], keep=True):
        Path("dvc.lock").write_text("after")
    old, new = ((PROJECT / "profiles" / "smoke.yaml").read_text(), Path("params.yaml").read_text())
    wanted = yaml.safe_load(old)
    wanted["dataset"]["videos_per_label"] = 7
    assert yaml.safe_load(new) == wanted
    assert re.findall("#.*", new) == re.findall("#.*", old)
    assert Path("dvc.lock").read_text() == "after"


def test_without_settings_of_its_own_a_run_changes_the_lock_for_good():
    with one_run_at_a_time(), settings_of_this_run([], keep=False):
        Path("dvc.lock").write_text("after")
    assert Path("dvc.lock").read_text() == "after"


def test_what_fails_is_put_back_even_if_it_was_to_be_kept():
    before = files()
    with pytest.raises(RuntimeError), one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=True):
        raise RuntimeError
    assert files() == before


def test_a_lock_that_was_not_there_is_gone_again():
    Path("dvc.lock").unlink()
    with one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=False):
        Path("dvc.lock").write_text("new")
    assert not Path("dvc.lock").exists()


@pytest.mark.parametrize("wrong", ["dataset.videos=7", "dataset", "dataset.videos_per_label=[", "=7"])
def test_what_dvc_cannot_apply_is_said_and_changes_nothing(wrong):
    before = files()
    refused = pytest.raises(ParamsError, match=r"cannot be applied to params\.yaml")
    with refused, one_run_at_a_time(), settings_of_this_run([wrong], keep=False):
        raise AssertionError("it is refused before")
    assert files() == before


def test_what_a_killed_run_changed_is_put_back_at_once():
    before = files()
    run = start_run()
    assert files() != before
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_until(before)


STAGE = (
    "stages: {write: {cmd: mkdir -p data/out && cp params.yaml data/out/part, deps: [params.yaml], outs: [data/out]}}"
)


@pytest.fixture
def dvc(monkeypatch, project):
    """DVC, in a project of one stage whose output says which settings it is of."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "site"))

    def run(*command: str) -> str:
        ran = subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True, text=True)
        return ran.stdout

    Path("dvc.lock").unlink()
    Path("dvc.yaml").write_text(STAGE)
    run("init", "--no-scm")
    run("repro")
    return run


def test_data_is_that_of_the_old_settings_again(dvc):
    before = Path("data/out/part").read_bytes()
    with one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=False):
        dvc("repro")
        assert Path("data/out/part").read_bytes() != before
    assert Path("data/out/part").read_bytes() == before
    assert "up to date" in dvc("status")


def test_what_a_run_took_out_of_data_is_there_again(dvc):
    with one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=False):
        shutil.rmtree("data/out")
    assert "up to date" in dvc("status")


def test_what_is_unfinished_in_data_stays_for_the_run_that_goes_on_with_it(dvc):
    with one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=False):
        Path("data/out/downloaded").write_text("nowhere else")
    assert Path("data/out/downloaded").read_text() == "nowhere else"


def test_who_cancels_does_not_wait_for_data_which_comes_back_all_the_same(dvc, monkeypatch):
    before = files()

    class Cancelled(BaseException):
        pass

    def never(*_: object) -> None:
        raise AssertionError("this takes too long")

    monkeypatch.setattr(workspace, "_put_back_data", never)
    shutil.rmtree("data/out")
    with pytest.raises(Cancelled), one_run_at_a_time(), settings_of_this_run(OVERRIDES, keep=False):
        raise Cancelled
    assert files() == before
    deadline = time.monotonic() + 60
    while workspace.SAVED.exists() or workspace.LOCK.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "up to date" in dvc("status")


def test_killed_while_dvc_had_taken_the_tracked_files_away_they_and_the_branch_come_back():
    def git(*command: str) -> str:
        return subprocess.run(["git", *command], check=True, capture_output=True, text=True).stdout

    git("init", "--quiet", "--initial-branch", "mine")
    git("config", "user.name", "n")
    git("config", "user.email", "e@e")
    Path("edited").write_text("committed")
    git("add", "edited", "params.yaml")
    git("commit", "--quiet", "-m", "all")
    Path("edited").write_text("not yet committed")
    before = files()
    # As `dvc exp save` does it.
    away = "import os; [os.system(f'git {it}') for it in ('stash -q', 'checkout -q --detach', 'reset -q --hard')]; "
    held = RUN.replace("keep=False)", "keep=False), git_of_this_run()").replace("print(", f"{away}print(")
    taken_away = f"from flows.workspace import git_of_this_run\n{held}"
    run = start_run(taken_away)
    assert Path("edited").read_text() == "committed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_until(before)
    assert Path("edited").read_text() == "not yet committed"
    assert git("symbolic-ref", "HEAD") == "refs/heads/mine\n"
    assert git("status", "--porcelain", "edited") == " M edited\n"
    assert not git("stash", "list")


def test_a_git_that_cannot_be_put_back_keeps_nothing_else_from_it(project):
    before = files()
    workspace.SAVED.mkdir(parents=True)
    for path in workspace.CHANGED:
        shutil.copy2(path, workspace.SAVED)
        path.write_text("changed")
    (workspace.SAVED / workspace.GIT).write_text('{"branch": "refs/heads/gone", "files": "", "stash": ""}')
    with one_run_at_a_time():
        assert files() == before
    assert not workspace.SAVED.exists()


@pytest.mark.parametrize(
    "left",
    [
        "",
        '{"write": {',
        "[]",
        json.dumps({"read": {}, "write": {"/data/out": {"pid": os.getpid(), "cmd": "dvc repro"}}}),
    ],
    ids=["empty", "torn", "not a table", "by another program"],
)
def test_a_note_that_a_killed_dvc_left_keeps_nobody_from_working(dvc, left):
    note = Path(".dvc/tmp/rwlock")
    note.write_text(left.replace("/data/out", str(Path("data/out").absolute())))
    Path("data/out/part").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        dvc("repro")
    with one_run_at_a_time():
        dvc("repro")


def test_the_note_of_a_dvc_at_work_stays(dvc):
    Path("dvc.yaml").write_text(STAGE.replace("mkdir -p", "sleep 60 && mkdir -p"))
    repro = [sys.executable, "-m", "dvc", "repro", "--force"]
    with subprocess.Popen(repro, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 30
        note = Path(".dvc/tmp/rwlock")
        while str(process.pid) not in (note.read_text() if note.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with one_run_at_a_time():
            assert str(process.pid) in note.read_text()
        os.killpg(process.pid, signal.SIGKILL)


def test_the_next_run_puts_back_what_nobody_else_could_and_knows_who_was_killed():
    before = files()
    with start_run() as run:
        # Its keeper dies with it, as when a machine loses power.
        (keeper,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        os.kill(int(keeper), signal.SIGKILL)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert files() != before
    with one_run_at_a_time("the second") as killed:
        assert killed == "its id"
        assert files() == before
    with one_run_at_a_time() as killed:
        assert killed == ""


def test_a_second_run_is_refused_or_waits_and_either_names_the_first():
    told: list[str] = []
    with start_run() as run:
        refused = pytest.raises(BusyError, match=rf"the first \(process {run.pid}, started .*\. Wait for it, or cancel")
        with refused, one_run_at_a_time():
            raise AssertionError("it is refused before")
        threading.Timer(1.0, run.kill).start()
        started = time.monotonic()
        with one_run_at_a_time(hold=told.append):
            assert time.monotonic() - started > 0.9
    assert len(told) == 1
    assert f"the first (process {run.pid}," in told[0]


def test_one_trains_at_a_time_on_a_machine_and_one_that_waits_can_be_stopped(project):
    class Stopped(Exception):
        pass

    pauses: list[float] = []

    def pause() -> None:
        pauses.append(time.monotonic())
        if len(pauses) == 3:
            raise Stopped

    told: list[str] = []
    holder = (
        "import pathlib, sys, time; from flows import workspace; workspace.TRAINING_SLOT = pathlib.Path('slot')\n"
        "with workspace.training_slot(print, time.sleep): print('ready', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "-c", holder], env=environment, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(Stopped), training_slot(told.append, pause):
            raise AssertionError("the other trains")
        assert len(told) == 1
        other.kill()
        other.wait()
        with training_slot(told.append, pause):
            assert len(told) == 1


@pytest.mark.parametrize(
    "labels", [["Drum", "Bell"], ["Dog", "Rain"], ["Acoustic guitar", "it's \\ (a) {label}: 1,\\"]]
)
def test_the_labels_of_a_form_become_those_of_the_params(labels):
    known = load_params().labels
    with one_run_at_a_time(), settings_of_this_run(overrides_for(labels, 9, ["frames.fit=crop"]), keep=False):
        written = yaml.safe_load(Path("params.yaml").read_text())
        assert sorted(written["labels"].values()) == sorted(labels)
        assert {key: name for key, name in known.items() if name in labels}.items() <= written["labels"].items()
        assert load_params().labels == written["labels"]
        assert (written["dataset"]["videos_per_label"], written["frames"]["fit"]) == (9, "crop")


def test_a_label_of_a_shared_branch_leaves_it_and_the_last_one_takes_it_away():
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["labels"] = {"drum": "Drum", "wet": {"rain": "Rain", "fall": "Waterfall"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for labels, left in (
        (["Drum", "Rain"], {"drum": "Drum", "wet": {"rain": "Rain"}}),
        (["Drum", "Bell"], {"drum": "Drum", "bell": "Bell"}),
        (["Bell", "Waterfall"], {"wet": {"fall": "Waterfall"}, "bell": "Bell"}),
    ):
        with one_run_at_a_time(), settings_of_this_run(overrides_for(labels, 0, []), keep=False):
            assert yaml.safe_load(Path("params.yaml").read_text())["labels"] == left


def test_an_empty_form_overrides_nothing():
    assert overrides_for([], 0, []) == []


def test_a_dask_cluster_without_an_address_is_refused():
    from flows.settings import environment_for

    with pytest.raises(SettingsError, match="dask_address"):
        environment_for("dask", "")
    assert environment_for("dask", "tcp://here:8786") == {
        "SOUNDBACK_EXECUTOR": "dask",
        "SOUNDBACK_DASK_ADDRESS": "tcp://here:8786",
    }
    assert environment_for("as set", "") == {}
