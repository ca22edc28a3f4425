"""What Prefect adds to DVC where there is nothing to do: the flow over all stages beside plain `dvc repro`.

`python -m tests.bench.flows [--labels N] [--quick] [--json FILE]`

Each label has a branch of four stages, as in dvc.yaml. A server runs already, as under `make ui`; the flow is a process
of its own, as under a worker.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from flows import PROJECT  # Before Prefect: it calls out unless this is set.

from prefect.settings import PREFECT_API_URL  # isort: skip
from prefect.testing.utilities import prefect_test_harness  # isort: skip

BRANCH = ("list_videos", "download_videos", "extract_audio", "extract_frames")
LIMIT_DVC_S, LIMIT_FLOW_S = 3.0, 15.0
ROUNDS = 3
WRITES = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[1])"


def write_project(folder: Path, n_labels: int) -> None:
    """A project whose stages only write their own names."""
    folder.mkdir()
    (folder / "write_name.py").write_text(WRITES)
    shutil.copy(PROJECT / "profiles" / "smoke.yaml", folder / "params.yaml")
    stages: dict[str, object] = {}
    for stage, upstream in zip(BRANCH, (None, *BRANCH), strict=False):
        deps = ["write_name.py", *([f"{upstream}-${{item}}"] if upstream else [])]
        do = {"cmd": f"exec python write_name.py {stage}-${{item}}", "deps": deps, "outs": [f"{stage}-${{item}}"]}
        stages[stage] = {"foreach": [f"label{n}" for n in range(n_labels)], "do": do}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def wall_s(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.monotonic() - started


def measure(n_labels: int) -> dict[str, float]:
    """Wall seconds, the least of some rounds."""
    with tempfile.TemporaryDirectory() as root, prefect_test_harness(server_startup_timeout=120):
        folder = Path(root) / "project"
        write_project(folder, n_labels)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "DVC_NO_ANALYTICS": "true",
            "DVC_SITE_CACHE_DIR": f"{root}/site",
        }
        repro, flow = [sys.executable, "-m", "dvc", "repro"], [sys.executable, "-m", "flows.pipeline"]
        wall_s([sys.executable, "-m", "dvc", "init", "--no-scm"], folder, environment)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        first_s = wall_s(repro, folder, environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        again_s = min(wall_s(repro, folder, environment) for _ in range(ROUNDS))
        flow_s = min(wall_s(flow, folder, environment) for _ in range(ROUNDS))
    return {"first repro": first_s, "its cpu": cpu_s, "repro again": again_s, "flow again": flow_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="5 labels")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    n_labels = 5 if options.quick else options.labels
    found = measure(n_labels)
    n_stages = len(BRANCH) * n_labels
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"{n_labels} labels, {n_stages} stages; wall seconds, the least of {ROUNDS}")
    print(f"{'dvc repro, the first':32}{found['first repro']:8.1f}   ({found['its cpu']:.1f} of CPU)")
    print(f"{'dvc repro, nothing to do':32}{found['repro again']:8.1f}   (at most {LIMIT_DVC_S:g})")
    print(f"{'the flow, nothing to do':32}{found['flow again']:8.1f}   (at most {LIMIT_FLOW_S:g})")
    each_ms = 1000 * (found["flow again"] - found["repro again"]) / n_stages
    print(f"{'the flow less dvc repro, a stage':32}{each_ms:8.0f} ms")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
