"""`make ui` for real: all comes up, a run goes through, and nothing is left after `make ui-stop`."""

import subprocess
from collections.abc import Iterator

import pytest
import requests

from tests.clones import Clone, free_port, make_clone
from tests.processes import processes_in, still_running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Clone]:
    clone = make_clone(tmp_path_factory.mktemp("ui"), profile="smoke")
    # A file: what the server and the worker inherit of a pipe would stay open for as long as they run.
    with (clone.root / "started.log").open("w") as printed:
        command = ["python", "-m", "flows.ui", "start", "--port", str(port)]
        subprocess.run(command, cwd=clone.root, env=clone.environment, stdout=printed, check=True)
    try:
        yield clone
    finally:
        clone.run("python", "-m", "flows.ui", "stop")


def test_a_run_started_from_its_deployment_completes_and_stopping_leaves_no_process(clone: Clone, port: int) -> None:
    address = f"http://127.0.0.1:{port}"
    assert address in (clone.root / "started.log").read_text()
    assert address in clone.run("python", "-m", "flows.ui", "start"), "a second start tells where it is"
    page = requests.get(address, timeout=10)
    assert page.ok

    command = ["prefect", "deployment", "run", "pipeline/demand", "--watch", "-p", 'stages=["list_videos@drum"]']
    prefect = {"PREFECT_API_URL": f"{address}/api", "PREFECT_HOME": str(clone.root / ".prefect")}
    environment = {**clone.environment, **prefect}
    ran = subprocess.run(command, cwd=clone.root, env=environment, capture_output=True, text=True, check=True)
    assert "Completed" in ran.stdout
    assert (clone.root / "data" / "catalog" / "drum.parquet").is_file()

    started = processes_in(clone.root)
    assert started
    clone.run("python", "-m", "flows.ui", "stop")
    assert not still_running(started, within_s=10)
    assert not processes_in(clone.root)
