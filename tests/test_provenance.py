"""What was built from what, as dvc.lock says it, and how the trainings went, as their tables say it."""

import copy
from pathlib import Path

import pytest
import yaml

from soundback.errors import DataContractError
from soundback.judging import provenance
from soundback.judging.curves import Curve, draw_curve, read_curves
from soundback.judging.provenance import read_provenance

PROJECT = Path(__file__).parents[1]


def entry(deps, outs, **params):
    return {
        "cmd": "python -m stages.x",
        "deps": [{"path": path, "hash": "md5", "md5": "0" * 32, "size": 1} for path in deps],
        "params": {"params.yaml": params},
        "outs": [
            {"path": path, "hash": "md5", "md5": f"{place}" * 32, "size": 1000} for place, path in enumerate(outs)
        ],
    }


STAGES = {
    "train": entry(["data/cut", "stages/train.py"], ["data/models/x.keras"], labels={"bell": "Bell", "drum": "Drum"}),
    "cut@bell": entry(["data/videos/bell", "soundback/a.py"], ["data/cut/bell"], audio={"rate": 8000}),
    "cut@drum": entry(["data/videos/drum", "soundback/b.py"], ["data/cut/drum"], audio={"rate": 8000}),
    "cut@rain": entry(["data/videos/rain", "soundback/a.py"], ["data/cut/rain"], audio={"rate": 4000}),
    "fetch@bell": entry(["videos.csv", "stages/fetch.py"], ["data/videos/bell"]),
    "fetch@drum": entry(["videos.csv", "stages/fetch.py"], ["data/videos/drum"]),
    "beside": entry(["data/cut"], ["data/other"]),
    "train_again@1": entry(["data/cut"], ["data/seeds/1/models/x.keras"], labels={"bell": "Bell", "drum": "Drum"}),
    "evaluate": entry(["data/models", "stages/evaluate.py"], ["data/report"]),
}


def read(folder, stages, inputs=("data/models",)):
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return read_provenance(map(Path, inputs), [folder / "dvc.lock", folder / "paper" / "dvc.lock"])


def test_every_stage_upstream_comes_after_what_it_read_and_no_other_comes(tmp_path):
    stages = read(tmp_path, STAGES).stages
    assert [(stage.name, stage.keys, stage.sources) for stage in stages] == [
        ("fetch", ("bell", "drum"), ()),
        ("cut", ("bell", "drum"), ("fetch",)),
        ("train", (), ("cut",)),
    ]
    cut = stages[1]
    assert [output.path for output in cut.outputs] == ["data/cut/bell", "data/cut/drum"]
    assert (cut.size_bytes, cut.n_files, cut.n_code_files) == (2000, 2, 2)
    assert yaml.safe_load(cut.params_text) == {"audio": {"rate": 8000}}


def test_params_that_differ_between_labels_are_told_one_by_one(tmp_path):
    stages = copy.deepcopy(STAGES)
    stages["cut@drum"]["params"]["params.yaml"]["audio"]["rate"] = 16000
    (cut,) = (stage for stage in read(tmp_path, stages).stages if stage.name == "cut")
    assert cut.params == {"audio of cut@bell": {"rate": 8000}, "audio of cut@drum": {"rate": 16000}}


def test_other_inputs_have_come_another_way_and_over_another_pipeline(tmp_path):
    assert [stage.name for stage in read(tmp_path, STAGES, ["data/seeds/1/models"]).stages] == [
        "fetch", "cut", "train_again",
    ]  # fmt: skip
    (tmp_path / "paper").mkdir()
    theirs = {"train_paper": entry(["data/cut"], ["data/paper/models"])}
    (tmp_path / "paper" / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": theirs}))
    names = [stage.name for stage in read(tmp_path, STAGES, ["data/models", "data/paper/models"]).stages]
    assert names == ["fetch", "cut", "train", "train_paper"]
    assert read(tmp_path, STAGES, ["elsewhere"]).stages == ()


def test_of_the_project_s_own_lock_every_stage_before_the_evaluation_is_told():
    described = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    locked = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]
    inputs = [Path(dep["path"]) for dep in locked["evaluate"]["deps"] if dep["path"].startswith("data/")]
    told = read_provenance(inputs, [PROJECT / "dvc.lock"]).stages
    assert {stage.name for stage in told} == set(described) - {"evaluate"}
    hashes = {out["md5"] for name, stage in locked.items() if name != "evaluate" for out in stage["outs"]}
    assert {output.md5 for stage in told for output in stage.outputs} == hashes


def test_without_a_lock_there_is_no_provenance(tmp_path):
    assert read_provenance([Path("data/models")], [tmp_path / "dvc.lock"]) is None


@pytest.mark.parametrize("text", ["", "stages: [a]", "<<<<<<< HEAD\nstages: {}", "schema: '2.0'", "stages: {x: 1}"])
def test_a_lock_that_is_none_is_refused_with_what_to_do(tmp_path, text):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(DataContractError, match=r"(?s)dvc\.lock is not the lock file .*`dvc repro`"):
        read_provenance([Path("data/models")], [tmp_path / "dvc.lock"])


def test_versions_are_those_that_run():
    versions = provenance.read_versions()
    assert set(provenance.LIBRARIES) < set(versions)
    assert versions["numpy"] == __import__("numpy").__version__
    assert all(versions.values())


def write_curve(folder, losses, validations):
    tables = folder / "plots" / "metrics"
    tables.mkdir(parents=True)
    for name, values in (("loss", losses), ("validation", validations)):
        lines = [f"step\t{name}", *(f"{100 * (place + 1)}\t{value}" for place, value in enumerate(values))]
        (tables / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_curve_says_where_it_began_was_best_and_ended(tmp_path):
    folder = write_curve(tmp_path / "spotter", [9.0, 5.0, 4.0], [3.0, 1.5, 2.5])
    (curve,) = read_curves({"spotter": folder, "classifier": tmp_path / "classifier"})
    assert curve == Curve("spotter", ((100, 9.0), (200, 5.0), (300, 4.0)), ((100, 3.0), (200, 1.5), (300, 2.5)))
    assert curve.best == (200, 1.5)
    assert curve.words == (
        "spotter: training loss from 9 at step 100 to 4 at step 300; validation from 3 at step 100 to 2.5 at step 300; "
        "lowest validation 1.5 at step 200"
    )


def test_a_curve_is_drawn_alike_each_time_and_of_one_point_too(tmp_path):
    (curve,) = read_curves({"x": write_curve(tmp_path / "x", [2.0], ["nan"])})
    assert draw_curve(curve) == draw_curve(curve)
    assert draw_curve(curve).startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["", "step\tloss\n", "step\tother\n1\t2\n", "step\tloss\n1\tx\n", None])
def test_a_table_that_is_no_curve_is_refused_by_name(tmp_path, text):
    folder = write_curve(tmp_path / "wavenet", [1.0], [1.0])
    table = folder / "plots" / "metrics" / "loss.tsv"
    table.unlink() if text is None else table.write_text(text)
    with pytest.raises(DataContractError, match=r"loss\.tsv is not a learning curve: .* found "):
        read_curves({"wavenet": folder})
