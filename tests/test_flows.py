"""The flow on toy pipelines of DVC's: one task per stage, told apart, stopped whole, one run at a time."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image
from prefect import Flow
from prefect.artifacts import Artifact
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness
from prefect.utilities.callables import parameter_schema

from flows import PROJECT
from flows.graph import Graph, needed, read_graph, trains
from flows.pipeline import dataset, pipeline, training
from flows.soundtrack import soundtrack
from flows.workspace import LOCK, one_run_at_a_time
from soundback.errors import SoundbackError
from tests.processes import still_running

WRITES = "import pathlib, sys; pathlib.Path(sys.argv[-1]).write_text('done')"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    shutil.copy(PROJECT / "profiles" / "smoke.yaml", "params.yaml")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    return workspace


def write_stages(**stages: tuple[str, list[str]]) -> None:
    """Writes a dvc.yaml: NAME=(python code, upstream stages); each stage's output is the file NAME."""
    for name, (code, _) in stages.items():
        Path(f"{name}.py").write_text(code)
    described = {
        name: {"cmd": f"exec python {name}.py {name}", "deps": [f"{name}.py", *upstream], "outs": [name]}
        for name, (_, upstream) in stages.items()
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": described}))


def run(**parameters: object) -> tuple[State, dict[str, State]]:
    """Runs the flow; gives its final state and those of its stages."""
    state = pipeline(**parameters, return_state=True)
    return state, _stage_states(state)


def _stage_states(state: State) -> dict[str, State]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    with get_client(sync_client=True) as client:
        for _ in range(50):  # Task states reach the server through events, a little later.
            runs = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id={"any_": [state.state_details.flow_run_id]}), limit=200
            )
            states = {task_run.name: task_run.state for task_run in runs}
            if all(each.is_final() or each.name == "NotReady" for each in states.values()):
                break
            time.sleep(0.1)
    return states


def test_the_graph_is_the_one_of_dvc_yaml(project: Path) -> None:
    write_stages(a=(WRITES, []), b=(WRITES, ["a"]), c=(WRITES, ["a", "b"]))
    assert read_graph() == {"a": set(), "b": {"a"}, "c": {"a", "b"}}


def test_stages_of_a_sub_pipeline_are_left_alone(project: Path) -> None:
    write_stages(a=(WRITES, []))
    (project / "paper").mkdir()
    below = {"stages": {"other": {"wdir": "..", "cmd": "true", "deps": ["a"]}}}
    (project / "paper" / "dvc.yaml").write_text(yaml.safe_dump(below))
    assert set(read_graph()) == {"a"}


def test_a_chosen_stage_brings_along_what_it_depends_on() -> None:
    graph: Graph = {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}
    assert needed(graph, {"b"}) == {"a": set(), "b": {"a"}}


def test_skipped_restored_and_run_are_told_apart(server: str, project: Path) -> None:
    write_stages(a=(WRITES, []), b=(WRITES, ["a"]))
    first, stages = run()
    assert first.is_completed()
    assert {name: state.name for name, state in stages.items()} == {"a": "Completed", "b": "Completed"}

    second, stages = run()
    assert second.message == "2 skipped"
    assert {state.name for state in stages.values()} == {"Skipped"}

    write_stages(a=(WRITES.replace("done", "changed"), []), b=(WRITES, ["a"]))
    run()
    write_stages(a=(WRITES, []), b=(WRITES, ["a"]))
    _, stages = run()
    assert {name: state.name for name, state in stages.items()} == {"a": "Restored", "b": "Restored"}
    assert (project / "a").read_text() == "done"


def test_force_runs_the_chosen_stage_and_not_those_it_depends_on(server: str, project: Path) -> None:
    write_stages(a=(WRITES, []), b=(WRITES, ["a"]), c=(WRITES, []))
    run()
    _, stages = run(stages=["b"], force=True)
    assert {name: state.name for name, state in stages.items()} == {"a": "Skipped", "b": "Completed"}


def test_when_a_stage_fails_its_last_words_are_told_other_branches_go_on_and_dependants_do_not_start(
    server: str, project: Path
) -> None:
    fails = "import sys; print('17 videos ready'); sys.exit('Nothing on this disk is a video. Plug in another.')"
    write_stages(a=(fails, []), b=(WRITES, ["a"]), c=(WRITES, []), d=(WRITES, ["c"]))
    state, stages = run()
    assert state.is_failed()
    assert "1 stage(s) failed: a." in state.message
    assert "Not started, because they depend on them: b." in state.message
    assert "Nothing on this disk is a video. Plug in another." in state.message
    assert {name: each.name for name, each in stages.items() if name != "a"} == {
        "b": "NotReady",
        "c": "Completed",
        "d": "Completed",
    }
    assert not (project / "b").exists()
    assert (project / "d").exists()


def test_an_unknown_stage_is_named_with_the_nearest_right_name(server: str, project: Path) -> None:
    write_stages(train_wavenet=(WRITES, []), evaluate=(WRITES, []))
    state, _ = run(stages=["train_wavnet"])
    assert state.is_failed()
    assert "'train_wavnet'" in state.message
    assert "did you mean 'train_wavenet'?" in state.message


def test_wrong_settings_are_refused_before_any_stage_starts(server: str, project: Path) -> None:
    write_stages(a=(WRITES, []))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("cycles:", "cycels:"))
    state, stages = run()
    assert state.is_failed()
    assert "did you mean cycles?" in state.message
    assert not stages


def test_what_is_left_of_a_label_taken_out_is_removed_first(server: str, project: Path) -> None:
    write_stages(a=(WRITES, []))
    for label in ("drum", "bell"):
        (project / "data" / "audio" / label).mkdir(parents=True)
    assert run()[0].is_completed()
    assert [path.name for path in (project / "data" / "audio").iterdir()] == ["drum"]


def test_progress_becomes_an_artifact_and_not_log_lines(
    server: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = "print('PROGRESS 1 4 Counting, about 3 s left'); print('PROGRESS 4 4 Counting, about 0 s left');"
    write_stages(counted=(f"{counts}print('all counted'); {WRITES}", []))
    run()
    artifact = Artifact.get("counted")
    assert artifact is not None
    assert artifact.data == 100.0
    assert artifact.description == "counted: Counting, about 0 s left"
    assert "all counted" in caplog.text
    assert "PROGRESS" not in caplog.text


def test_two_stages_run_side_by_side_but_never_two_that_train(server: str, project: Path) -> None:
    log = project / "log"
    timed = (
        "import pathlib, sys, time; log = open('log', 'a'); print('start', sys.argv[1], file=log, flush=True);"
        f"time.sleep(1.5); print('end', sys.argv[1], file=log, flush=True); {WRITES}"
    )
    names = ["cut", "paint", "train_a", "train_b", "evaluate"]
    write_stages(**{name: (timed, []) for name in names})
    run()
    under_way: set[str] = set()
    most, most_training = 0, 0
    for line in log.read_text().splitlines():
        what, stage = line.split()
        under_way ^= {stage}
        assert (what == "start") == (stage in under_way)
        most = max(most, len(under_way))
        most_training = max(most_training, sum(map(trains, under_way)))
    assert (most, most_training) == (2, 1)


def test_a_second_run_is_refused_in_a_sentence_that_names_the_first(server: str, project: Path) -> None:
    write_stages(a=(WRITES, []))
    with one_run_at_a_time():
        state, stages = run()
    assert state.is_failed()
    assert f"process {os.getpid()}, started " in state.message
    assert not stages
    assert run()[0].is_completed()


def test_the_lock_names_the_last_holder_only(project: Path) -> None:
    for _ in range(2):
        with one_run_at_a_time():
            assert LOCK.read_text().count("process") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_a_run_ends_its_stage_and_the_children_of_its_stage_end_too(
    server: str, project: Path, number: signal.Signals
) -> None:
    # The stage ends with DVC through `die_with_parent`, as ours do in `stage_process`; its child as our ffmpeg does.
    sleeps = (
        "import os, subprocess, sys, time; from soundback.lifetime import die_with_parent; die_with_parent();"
        "open('pids', 'a').write(f'{os.getpid()} ');"
        "sys.argv[1:] and subprocess.Popen([sys.executable, sys.argv[0]]); time.sleep(300)"
    )
    write_stages(a=(sleeps, []))
    flow = subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline"],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PREFECT_API_URL": server},
        start_new_session=True,
    )
    pids = _wait_for_pids(project / "pids", flow)
    tree = psutil.Process(flow.pid).children(recursive=True)
    flow.send_signal(number)
    flow.wait(20)
    assert {process.pid for process in tree} >= set(pids)
    assert not still_running(tree, within_s=5)
    # DVC takes its predecessor for alive until init has noted the end.
    psutil.wait_procs(tree, timeout=30)

    write_stages(a=(WRITES, []))
    assert run()[0].is_completed(), "the workspace is ready for the next run"


def _wait_for_pids(path: Path, flow: subprocess.Popen[bytes]) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and flow.poll() is None:
        if path.exists() and len(pids := path.read_text().split()) == 2:
            return [int(pid) for pid in pids]
        time.sleep(0.1)
    pytest.fail("the stage did not start within a minute")


def test_the_graph_of_this_project_has_a_branch_per_label_and_ends_in_evaluate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(PROJECT)
    graph = read_graph()
    labels = yaml.safe_load((PROJECT / "params.yaml").read_text())["labels"]
    assert {stage for stage in graph if stage.startswith("extract_audio@")} == {
        f"extract_audio@{key}" for key in labels
    }
    assert set(needed(graph, {"evaluate"})) == set(graph)


def test_the_errors_of_the_flow_are_sentences_for_the_user() -> None:
    from flows.dvc_tasks import StageError
    from flows.workspace import BusyError

    assert issubclass(StageError, SoundbackError)
    assert issubclass(BusyError, SoundbackError)


def test_where_nothing_changed_dvc_is_asked_once_and_no_process_is_started(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stages(a=(WRITES, []), b=(WRITES, ["a"]), c=(WRITES, []))
    run()
    started: list[str] = []

    def count(code: str, arguments: list[str], *_: object, **__: object) -> int:
        started.append(arguments[-1])
        return 0

    monkeypatch.setattr("flows.dvc_tasks.run", count)
    assert run()[0].message == "3 skipped"
    assert not started
    write_stages(a=(WRITES + " # more", []), b=(WRITES, ["a"]), c=(WRITES, []))
    run()
    assert sorted(started) == ["a", "b"]


READS_PARAMS = (
    "import pathlib, sys, yaml; said = yaml.safe_load(open('params.yaml'))['dataset']['videos_per_label'];"
    "pathlib.Path(sys.argv[-1]).write_text(str(said))"
)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


def make_repository() -> None:
    """Has git hold the workspace, as `dvc exp save` asks."""
    shutil.rmtree(".dvc")
    git("init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    git("add", "--all")
    git("commit", "--quiet", "--message", "all")


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_with_settings_of_its_own_is_recorded_and_the_files_are_put_back_unless_kept(
    server: str, project: Path, keep: bool
) -> None:
    write_stages(a=(READS_PARAMS, []))
    described = yaml.safe_load(Path("dvc.yaml").read_text())
    described["stages"]["a"]["params"] = ["dataset.videos_per_label"]
    Path("dvc.yaml").write_text(yaml.safe_dump(described))
    make_repository()
    run()
    files = [Path("params.yaml"), Path("dvc.lock"), Path("a")]
    before = [path.read_bytes() for path in files]
    state, _ = run(videos_per_label=7, keep=keep)
    assert state.is_completed()
    assert Path("a").read_text() == ("7" if keep else "9")
    assert ([path.read_bytes() for path in files] == before) != keep
    references = git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    (recorded,) = [each for each in references if each.endswith(f"/{state_name(state)}")]
    assert yaml.safe_load(git("show", f"{recorded}:params.yaml"))["dataset"]["videos_per_label"] == 7


def state_name(state: State) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id).name


def test_settings_that_cannot_be_fail_the_run_in_a_sentence_before_any_stage_starts(server: str, project: Path) -> None:
    write_stages(a=(WRITES, []))
    before = Path("params.yaml").read_bytes()
    for wrong, words in (("dataset.videos=7", "cannot be applied to params.yaml"), ("dataset.seed=x", "dataset.seed")):
        state, stages = run(settings=[wrong])
        assert state.is_failed()
        assert words in state.message
        assert not stages
        assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(("status", "ends"), [(75, "Completed"), (1, "Failed")])
def test_a_stage_that_may_succeed_in_a_minute_is_started_again_and_no_other(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch, status: int, ends: str
) -> None:
    monkeypatch.setattr("flows.dvc_tasks.RETRY_S", (0.1,))
    once = f"import os, sys; tried = os.path.exists('tried'); open('tried', 'a'); tried or sys.exit({status}); {WRITES}"
    write_stages(list_videos=(once, []))
    _, stages = run()
    assert stages["list_videos"].name == ends


def test_the_dataset_is_rebuilt_without_training_and_training_brings_the_dataset_along(
    server: str, project: Path
) -> None:
    write_stages(list_videos=(WRITES, []), train_wavenet=(WRITES, ["list_videos"]), evaluate=(WRITES, []))
    state = dataset(return_state=True)
    assert set(_stage_states(state)) == {"list_videos"}
    state = training(stages=["train_wavenet"], return_state=True)
    assert {name: each.name for name, each in _stage_states(state).items()} == {
        "list_videos": "Skipped",
        "train_wavenet": "Completed",
    }
    assert set(_stage_states(training(return_state=True))) == {"list_videos", "train_wavenet", "evaluate"}


def test_metrics_with_their_change_pictures_and_losses_are_artifacts(server: str, project: Path) -> None:
    measures = (
        "import json, pathlib, sys; pathlib.Path('data/metrics').mkdir(parents=True, exist_ok=True);"
        "pathlib.Path('data/metrics/spotter.json').write_text(json.dumps({'f1': {'mean': %s}, 'n': 3, 'of': 'x'}));"
        f"{WRITES}"
    )
    write_stages(train_spotter=(measures % 0.5, []))
    picture = Path("data/plots/spotter/loudness.png")
    picture.parent.mkdir(parents=True)
    Image.new("L", (3, 2)).save(picture)
    run()
    write_stages(train_spotter=(measures % 0.75, []))
    run()
    metrics = Artifact.get("metrics")
    assert metrics is not None
    assert json.loads(metrics.data) == [
        {"metric": "spotter.f1", "now": 0.75, "last run": 0.5, "change": "+0.2500"},
        {"metric": "spotter.n", "now": 3.0, "last run": 3.0, "change": ""},
    ]
    shown = Artifact.get("spotter-loudness")
    assert shown is not None
    kind, _, content = shown.data.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == picture.read_bytes()
    losses = Artifact.get("dataset")
    assert losses is not None
    assert "| label | wanted | had | usable | lost | why |" in losses.data
    assert "| Drum |" in losses.data


@pytest.mark.parametrize("form", [pipeline, dataset, training, soundtrack], ids=lambda form: form.name)
def test_every_field_of_a_form_says_what_it_is_for(form: Flow) -> None:
    fields = parameter_schema(form.fn).properties
    assert fields
    unsaid = [name for name, field in fields.items() if not field.get("description") or "anyOf" in field]
    assert not unsaid
    assert form.description


def test_what_the_form_of_a_soundtrack_says_reaches_the_command_line(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.soundtrack.SOUNDBACK", "import sys; print(*sys.argv[1:])")
    state = soundtrack("silent", "out", seed=7, category="Drum", mix="under", overwrite=True, return_state=True)
    command = "generate silent --out out --seed 7 --models data/models --when-unsure quiet --mix under"
    assert f"{command} --category Drum --overwrite" in state.message
    plain = soundtrack("silent", "out", return_state=True)
    assert "--category" not in plain.message
    assert "--overwrite" not in plain.message


def test_where_dvc_cannot_record_a_run_because_git_has_no_commit_yet_the_run_ends_well(
    server: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_stages(a=(WRITES, []))
    shutil.rmtree(".dvc")
    git("init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    assert run(videos_per_label=7)[0].is_completed()
    assert "`dvc exp save` failed" in caplog.text


def test_what_libraries_mutter_about_drivers_is_not_among_the_last_words(server: str, project: Path) -> None:
    mutters = "E0000 00:00:1796396874.713986    6104 cuda_platform.cc:52] failed call to cuInit"
    write_stages(a=(f"import sys; print('Too few clips.'); print({mutters!r}); sys.exit(1)", []))
    state, _ = run()
    assert "Too few clips." in state.message
    assert "cuInit" not in state.message
