"""dvc.yaml is held to the code: what a stage imports, reads and is given, and to dvc.lock. So is each sub-pipeline.

`python -m tests.test_dvc_yaml` prints for every stage what its code dependencies should be.
"""

import ast
import hashlib
import inspect
import subprocess
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import grimp
import pytest
import yaml

from soundback.params import Params
from stages import CHANGED, OTHER_PARAMS

PROJECT = Path(__file__).parents[1]
PIPELINES = ("dvc.yaml", "quality/dvc.yaml", "paper/dvc.yaml")
PARAMS = "params.yaml"
# What a user writes, beside params.yaml.
INPUTS = {"videos.csv"}
# They decide no byte of an output: a better error message or another executor retrains nothing.
DECIDES_NO_BYTES = {"errors", "settings", "executors", "params", "progress", "lifetime", "outputs", "checkpoints"}
# It looks at the machine before the work begins: neither it nor what it imports for that decides a byte.
DOCTOR, EXAMINATION = "soundback.doctor", "checks.require"


@dataclass(frozen=True)
class Stage:
    """A stage as dvc.yaml describes it; where there is one per label or variant, with `${key}` left in."""

    pipeline: str  # of PIPELINES
    name: str
    wdir: str
    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params_file: str
    params: frozenset[str]  # sections of that file

    @property
    def module(self) -> str:
        """The code that its command runs: a file in stages/."""
        return self.cmd.split()[3].removeprefix("stages.")

    @property
    def code(self) -> set[str]:
        return set(self.deps) - set(self.inputs)

    @property
    def inputs(self) -> list[str]:
        return [dep for dep in self.deps if dep.startswith(("data/", "${item.")) or dep in INPUTS]

    @property
    def source(self) -> Path:
        return PROJECT / "stages" / f"{self.module}.py"


def read_stages(pipeline: str) -> dict[str, Stage]:
    described = yaml.safe_load((PROJECT / pipeline).read_text())["stages"]
    return {name: _stage(pipeline, name, each.get("do", each)) for name, each in described.items()}


def _stage(pipeline: str, name: str, described: dict[str, Any]) -> Stage:
    entries = [*described.get("outs", []), *described.get("metrics", []), *described.get("plots", [])]
    outs = (next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries)
    params_file, names = _params(described.get("params", []))
    sections = frozenset(param.split(".")[0] for param in names)
    wdir = described.get("wdir", ".")
    deps = tuple(described["deps"])
    return Stage(pipeline, name, wdir, described["cmd"], deps, tuple(outs), params_file, sections)


def _params(described: list[Any]) -> tuple[str, list[str]]:
    """Which params file a stage reads, and what of it: DVC writes `[cues]`, or `[{paper/params.yaml: [cues]}]`."""
    if not described or not isinstance(described[0], dict):
        return PARAMS, described
    ((file, names),) = (entry for each in described for entry in each.items())
    return file, names


STAGES = {name: stage for pipeline in PIPELINES for name, stage in read_stages(pipeline).items()}
each_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


@cache
def imports() -> grimp.ImportGraph:
    graph = grimp.build_graph("soundback", "stages", cache_dir=None)
    for module in {DOCTOR, *graph.find_descendants(DOCTOR)}:
        graph.remove_module(module)
    return graph


def imported_files(stage: Stage) -> set[str]:
    """The project's files that a stage imports or reads, directly or not, and that may decide what comes out."""
    module = f"stages.{stage.module}"
    modules = {module, *imports().find_upstream_modules(module)}
    files = {_file_of(module) for module in modules}
    code = {file for file in files if Path(file).stem not in DECIDES_NO_BYTES and not _is_bare_package(file)}
    return code | {template for file in code for template in _read_by_name(PROJECT / file)}


def _read_by_name(path: Path) -> set[str]:
    """Files beside a module that are no code and that it names, e.g. a page's template."""
    beside = [each for each in path.parent.iterdir() if each.is_file() and each.suffix != ".py"]
    return {str(each.relative_to(PROJECT)) for each in beside if f'"{each.name}"' in path.read_text()}


def _file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (PROJECT / path).is_dir() else path.with_suffix(".py"))


def _is_bare_package(file: str) -> bool:
    """Whether it is a package's front page: a docstring only, or what all stages share as programs."""
    if Path(file).name != "__init__.py":
        return False
    return file == "stages/__init__.py" or len(ast.parse((PROJECT / file).read_text()).body) <= 1


@each_stage
def test_stage_declares_the_code_it_imports(stage: Stage) -> None:
    imported = imported_files(stage)
    assert stage.code == imported, f"{stage.pipeline}, stage {stage.name}: {difference(stage)}"


def difference(stage: Stage) -> str:
    """What to change in dvc.yaml, and the line that should stand there."""
    imported = imported_files(stage)
    missing, excess = sorted(imported - stage.code), sorted(stage.code - imported)
    data = [f'"{dep}"' if "$" in dep else dep for dep in stage.inputs]
    return (
        f"to add {', '.join(missing) or 'nothing'}; to take out {', '.join(excess) or 'nothing'}; so that it says\n"
        f"      deps: [{', '.join([*data, *sorted(imported)])}]"
    )


@each_stage
def test_stage_declares_the_paths_it_is_given(stage: Stage) -> None:
    command = stage.cmd.split()
    assert command[:3] == ["exec", "python", "-m"]
    assert command[3] == f"stages.{stage.module}"
    other_params = command[4] == OTHER_PARAMS
    assert stage.params_file == (command[5] if other_params else PARAMS)
    if command[4] not in (OTHER_PARAMS, CHANGED):
        assert stage.module == stage.name
    while command[4] in (OTHER_PARAMS, CHANGED):
        del command[4:6]
    given = [argument for argument in command[4:] if "/" in argument or argument in INPUTS]
    n_inputs = len(stage.inputs)
    # A stage of each branch is told which, and finds its own under what it is given.
    inputs, outs = ([path.removesuffix("/${key}") for path in paths] for paths in (stage.inputs, stage.outs))
    assert ("${key}" in command) == (outs != list(stage.outs))
    assert given[:n_inputs] == inputs, "inputs first, in the order of deps"
    assert sorted(given[n_inputs:]) == sorted(outs), "then outputs"


@each_stage
def test_stage_declares_the_params_it_reads(stage: Stage) -> None:
    assert sections_read(stage.source.read_text()) == stage.params


def sections_read(source: str) -> set[str]:
    """The sections of params.yaml that the `__main__` block of a stage reads, derived numbers resolved."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    nodes = [node for block in blocks for node in ast.walk(block)]
    read = [node for node in nodes if isinstance(node, ast.Attribute) and _is_params(node.value)]
    examined = [argument for node in nodes if _is_examination(node) for argument in node.args]
    used_otherwise = [*(each.value for each in read), *examined]
    whole = [node for node in nodes if _is_params(node) and not any(each is node for each in used_otherwise)]
    names = {name for node in read for name in sections_behind(node.attr)}
    # Handed on whole, it may read anything. `params = load_params()` itself hands nothing on.
    assigned = [node.value for node in nodes if isinstance(node, ast.Assign)]
    return names if all(node in assigned for node in whole) else set(Params.model_fields)


def _is_params(node: ast.AST) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_params"
    return called or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id == "params")


def _is_examination(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == EXAMINATION


def sections_behind(name: str) -> set[str]:
    """`audio` is a section; `hop` is derived from some."""
    if name in Params.model_fields:
        return {name}
    derived = ast.parse(textwrap.dedent(inspect.getsource(vars(Params)[name].func)))
    read = [node for node in ast.walk(derived) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"]
    return {section for node in read for section in sections_behind(node.attr)}


def test_a_derived_number_counts_as_the_sections_behind_it() -> None:
    block = 'if __name__ == "__main__":\n    params = load_params()\n    stage(hop=params.hop, cues=load_params().cues)'
    assert sections_read(block) == {"audio", "frames", "cues"}


def test_params_handed_on_whole_count_as_all_sections() -> None:
    block = 'if __name__ == "__main__":\n    params = load_params()\n    stage(params)'
    assert sections_read(block) == set(Params.model_fields)


def test_what_only_the_doctor_looks_at_counts_for_nothing() -> None:
    lines = (
        'if __name__ == "__main__":',
        "params = load_params()",
        'checks.require(params, "x")',
        "stage(params.cues)",
    )
    assert sections_read("\n    ".join(lines)) == {"cues"}


def test_every_stage_has_its_file_and_every_file_its_stage() -> None:
    assert len(STAGES) == sum(len(read_stages(pipeline)) for pipeline in PIPELINES), "no name twice"
    files = {path.stem for path in (PROJECT / "stages").glob("*.py")} - {"__init__"}
    assert {stage.module for stage in STAGES.values()} == files


def test_no_pipeline_is_left_out_here() -> None:
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "dvc.yaml", "*/dvc.yaml"],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert sorted(found.stdout.split()) == sorted(PIPELINES)


@each_stage
def test_what_is_told_other_params_reads_them(stage: Stage) -> None:
    if {OTHER_PARAMS, CHANGED} & set(stage.cmd.split()):
        imported = [node for node in ast.parse(stage.source.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert "load_params" in [name.name for node in imported if node.module == "stages" for name in node.names]


@each_stage
def test_every_stage_runs_in_the_folder_of_the_project(stage: Stage) -> None:
    assert (PROJECT / stage.pipeline).parent.joinpath(stage.wdir).resolve() == PROJECT


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lock(pipeline: str) -> dict[str, Any]:
    locked = (PROJECT / pipeline).with_suffix(".lock")
    if not locked.exists():
        pytest.skip("nothing of it was built yet")
    files = sorted({stage.params_file for stage in read_stages(pipeline).values()})
    shown = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *files], cwd=PROJECT, check=False)
    if shown.returncode != 0:
        pytest.skip(f"{' and '.join(files)} not as committed: dvc.lock need not fit it")
    return dict(yaml.safe_load(locked.read_text())["stages"])


@cache
def resolved_stages(pipeline: str) -> dict[str, Any]:
    """The stages with `${key}` filled in, as DVC does it."""
    from dvc.repo import Repo

    with Repo(PROJECT) as repo:
        return {stage.name: stage for stage in repo.index.stages if stage.path_in_repo == pipeline}


def test_dvc_lock_holds_the_stages_of_dvc_yaml_and_no_others(pipeline: str, lock: dict[str, Any]) -> None:
    said = f"run `dvc repro {pipeline}`, and delete from its dvc.lock what is no stage any more"
    assert set(lock) == set(resolved_stages(pipeline)), said


def test_dvc_lock_fits_commands_params_and_code(pipeline: str, lock: dict[str, Any]) -> None:
    """The check that needs no data: what a clone holds without `dvc pull` decides whether its dvc.lock is behind."""
    behind = []
    for name, stage in resolved_stages(pipeline).items():
        locked = lock.get(name, {})
        if locked.get("cmd") != stage.cmd:
            behind.append(f"{name}: its command changed")
        described = STAGES[name.split("@")[0]]
        values = yaml.safe_load((PROJECT / described.params_file).read_text())
        for param, value in locked.get("params", {}).get(described.params_file, {}).items():
            if _value_at(values, param) != value:
                behind.append(f"{name}: {param} changed in {described.params_file}")
        files = {dep["path"]: dep["md5"] for dep in locked.get("deps", []) if not dep["path"].startswith("data/")}
        if set(files) != described.code | INPUTS & set(described.deps):
            behind.append(f"{name}: its code dependencies changed")
        behind += [f"{name}: {path} changed" for path, md5 in files.items() if _md5(PROJECT / path) != md5]
    assert not behind, f"dvc.lock is behind; run `dvc repro {pipeline}` and commit it:\n" + "\n".join(behind)


def _value_at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _md5(path: Path) -> str | None:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else None


if __name__ == "__main__":
    for each in STAGES.values():
        if each.source.exists():
            print(f"{each.name}: {difference(each)}")
            print(f"      params: [{', '.join(sorted(sections_read(each.source.read_text())))}]")
