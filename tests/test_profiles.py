"""The params files that `make use` switches between."""

import subprocess
from pathlib import Path

import pytest

from soundback.params import DemoSource, load_params

PROJECT = Path(__file__).parents[1]
PROFILES = sorted((PROJECT / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_loads(path: Path) -> None:
    params = load_params(path)
    assert params.hop * params.frames.frame_rate == params.audio.sample_rate
    for watcher in (params.classifier, params.spotter):
        assert params.frames.size % watcher.picture_size == 0


def test_params_yaml_as_committed_is_a_profile_so_that_make_use_can_bring_it_back() -> None:
    # What is being edited may differ for a while; what is committed must not.
    params = committed("params.yaml")
    profiles = [committed(f"profiles/{path.name}") for path in PROFILES]
    assert params in profiles, "params.yaml is in no profile: cp params.yaml profiles/demo.yaml (or another name)"


def committed(name: str) -> bytes | None:
    command = ["git", "show", f"HEAD:{name}"]
    shown = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    if shown.returncode != 0 and name == "params.yaml":
        pytest.skip("no git history here")
    return shown.stdout if shown.returncode == 0 else None


def test_the_real_profile_asks_youtube8m_at_its_own_addresses() -> None:
    source = load_params(PROJECT / "profiles" / "youtube8m.yaml").source
    assert not isinstance(source, DemoSource)
    assert source.label_index == "https://storage.googleapis.com/data.yt8m.org/2/j/v"
    assert source.id_map == "https://storage.googleapis.com/data.yt8m.org/2/j/i"


def test_make_use_keeps_settings_that_are_in_no_profile(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((PROJECT / "Makefile").read_bytes())
    (tmp_path / "profiles").mkdir()
    for name in ("demo", "smoke"):
        (tmp_path / "profiles" / f"{name}.yaml").write_text(f"{name}: 1\n")
    params = tmp_path / "params.yaml"

    def use(profile: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "use", f"PROFILE={profile}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    params.write_text("demo: 1\n")
    assert use("smoke").returncode == 0
    assert params.read_text() == "smoke: 1\n"

    assert use("absent").returncode != 0
    assert "demo smoke" in use("absent").stdout

    params.write_text("mine: 1\n")
    refused = use("demo")
    assert refused.returncode != 0
    assert "settings of your own" in refused.stdout
    assert params.read_text() == "mine: 1\n"
