"""The evaluate stage, from folders of clips to table and report; its models are stand-ins whose answers are known."""

import json

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from soundback import schemas
from soundback.cues import CueSheet, Hearing, Segment
from soundback.dataset import Clip
from soundback.errors import DataContractError
from soundback.judging import coding, metrics
from soundback.judging.audition import Sections
from soundback.judging.held_out import Folders, HeldOut, choose_clips, commonest_label, training_sounds
from soundback.judging.judge import Example, Judge, hear, train_judge
from soundback.judging.probes import SCENE_PROBES
from soundback.judging.rows import ROWS, shape_noise, shift
from soundback.judging.trials import category_sheet, fit_length
from soundback.judging.watching import majority_category
from soundback.media.audio import read_wav
from soundback.params import load_params
from soundback.sounding.sampler import Sampler
from soundback.sounding.wavenet import build_wavenet
from soundback.sources.demo.world import World
from soundback.watching.segments import Watched
from stages import evaluate
from tests import heard, watched
from tests.synthetic import Film

DEMO = load_params()
ELSEWHERE = {"kind": "youtube8m", "vocabulary": "x", "label_index": "x", "id_map": "x", "watch": "x"}
PARAMS = DEMO.model_validate(
    DEMO.model_dump()
    | {
        "labels": watched.LABELS,
        "source": ELSEWHERE,
        "evaluation": DEMO.evaluation.model_dump()
        | {"bootstrap": 50, "max_videos_per_label": 2, "examples_per_label": 1},
    }
)
WAVENET = PARAMS.wavenet.model_copy(
    update={"layers": 4, "residual_channels": 8, "gate_channels": 8, "skip_channels": 8, "cue_channels": 4}
)
CATEGORIES = ("Disc", "Square")
SECTIONS = Sections(
    PARAMS.evaluation,
    PARAMS.soundtrack,
    PARAMS.source,
    PARAMS.audio,
    PARAMS.frames,
    PARAMS.cues,
    PARAMS.labels,
    PARAMS.dataset,
)


def write_data(root):
    """Three test videos and two training videos of each label, as the stages before would."""
    film = Film(duration_s=3.0).write(root / "film.mp4").read_bytes()
    rng = np.random.default_rng(0)
    for slug, label in watched.LABELS.items():
        clips, sounds, downloads = [], [], []
        (root / "videos" / slug).mkdir(parents=True)
        (root / "audio" / slug).mkdir(parents=True)
        for number in range(5):
            video_id, split = f"{slug}{number:03d}", "test" if number < 3 else "train"
            frames, waveform = watched.film(label, rng)
            clips.append((video_id, label, split, frames))
            sounds.append(watched.audio_row(video_id, label, split, len(waveform)))
            soundfile.write(root / "audio" / slug / f"{video_id}_00.wav", waveform, watched.SAMPLE_RATE)
            (root / "videos" / slug / f"{video_id}_00.mp4").write_bytes(film)
            row = {"video_id": video_id, "clip_index": 0, "label": label, "split": split, "status": "ok"}
            downloads.append(row | {"path": f"{video_id}_00.mp4", "clip_start_s": 0.0})
        watched.write_frames(clips, root / "frames" / slug)
        schemas.write_table(sounds, schemas.AUDIO, root / "audio" / slug / "audio.parquet")
        schemas.write_table(downloads, schemas.DOWNLOADS, root / "videos" / slug / "downloads.parquet")
    watched.write_duplicates(root)


def write_judge(root, path):
    examples = [
        Example(hear(read_wav(wav), watched.SAMPLE_RATE), CATEGORIES.index(watched.LABELS[wav.parent.name]))
        for wav in sorted(root.glob("audio/*/*.wav"))
    ]
    params = PARAMS.judge.model_copy(update={"channels": (4, 4), "embedding": 4, "steps": 5, "batch_size": 4})
    model = train_judge(examples, [], 2, params=params).model
    Judge(model, CATEGORIES, watched.SAMPLE_RATE).save(path)


def write_curves(folder):
    """What three trainings leave."""
    for name in ("classifier", "spotter", "wavenet"):
        (folder / name / "plots" / "metrics").mkdir(parents=True)
        for curve in ("loss", "validation", "learning_rate"):
            lines = [f"step\t{curve}", *(f"{step}\t{1 / (step + 1)}" for step in (0, 50, 100))]
            (folder / name / "plots" / "metrics" / f"{curve}.tsv").write_text("\n".join(lines) + "\n")


class Stand_in:
    """Watches perfectly but takes everything for a disc; sounds noise of the told loudness."""

    categories = CATEGORIES
    sample_rate = watched.SAMPLE_RATE

    def __init__(self, root):
        self.sampler = Sampler.from_model(build_wavenet(WAVENET, len(CATEGORIES) + 4, watched.HOP))
        self.waveforms = [read_wav(path) for path in sorted(root.glob("audio/*/*.wav")) if int(path.stem[-4]) < 3]
        self.n_watched = 0

    def watch(self, batches):
        hearing = Hearing(watched.SAMPLE_RATE, watched.HOP, PARAMS.cues, hit_scale=10.0)
        # The four clips come first; what is joined of them comes after, and has no sound.
        known = self.waveforms[[0, 1, 3, 4][self.n_watched % 4]]
        self.n_watched += 1
        n_frames = sum(len(batch) for batch in batches)
        loudness_db, hit = (curve[:n_frames] for curve in hearing.measure(known))
        segments = (Segment(0.0, n_frames / watched.FRAME_RATE, "Disc", 0.9),)
        probabilities = np.tile(np.float32([0.9, 0.1]), (n_frames, 1))
        return Watched(
            probabilities,
            np.ones(len(probabilities), bool),
            (),
            CueSheet(watched.FRAME_RATE, segments, loudness_db, hit),
        )

    def stream(self, sheet, *, seed, with_curves=True, workers=None):
        loudness_db = sheet.loudness_db if with_curves else np.full(sheet.n_frames, -30.0, np.float32)
        whole = shape_noise(loudness_db, heard.EAR, seed=seed)
        yield from np.array_split(whole, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    write_data(root)
    (root / "models").mkdir()
    write_judge(root, root / "models" / "judge.keras")
    write_curves(root / "curves")
    return root


def run_stage(root, out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.Soundtrack, "load", lambda models, params: Stand_in(root))
        inputs = [root / name for name in ("videos", "audio", "frames", "duplicates.parquet", "models")]
        curves = [root / "curves" / name for name in ("classifier", "spotter", "wavenet")]
        made = out / "evaluation.json", out / "plots", out / "report"
        evaluate.evaluate(*inputs, *curves, *made, params=SECTIONS, locks=[])


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    run_stage(root, out)
    return out


@pytest.fixture(scope="module")
def evaluation(out):
    return json.loads((out / "evaluation.json").read_text())


def test_the_table_has_every_row_over_the_held_out_videos_alone(evaluation):
    assert evaluation["n_videos"] == 4
    assert tuple(evaluation["rows"]) == tuple(row for row in ROWS if not row.startswith("paper"))
    assert {cells["loudness_error_db"]["n"] for cells in evaluation["rows"].values()} == {4}


def test_known_answers_get_their_known_scores(evaluation):
    rows = evaluation["rows"]
    assert evaluation["watching"]["category_accuracy"] == 0.5
    assert evaluation["watching"]["loudness_correlation"] == pytest.approx(1)
    assert evaluation["watching"]["macro_f1"] == pytest.approx(1 / 3)
    assert evaluation["watching"]["majority_accuracy"] == 0.5
    assert evaluation["watching"]["unsure_share"] == 0
    assert evaluation["watching"]["calibration_error"] == pytest.approx(0.9 - 0.5)
    assert rows["real"]["onset_f1_50ms"]["mean"] == 1
    assert rows["local_predicted"]["loudness_correlation"]["low"] > 0.8
    assert abs(rows["category_only"]["loudness_correlation"]["mean"]) < 0.4
    assert evaluation["paired"]["local_predicted_minus_category_only"]["loudness_correlation"]["low"] > 0.5


def test_what_watches_one_category_finds_no_switch_and_without_a_world_no_scene_is_drawn(evaluation):
    probes = evaluation["probes"]
    assert (probes["cut_switch_within_300ms"]["mean"], probes["cut_switch_within_300ms"]["n"]) == (0, 2)
    assert probes["cut_switch_error_s"]["mean"] is None
    for name in SCENE_PROBES:
        assert probes[name] == {"mean": None, "low": None, "high": None, "n": 0}


def test_an_untrained_wavenet_needs_eight_bits_for_every_sample(evaluation):
    for row in ("local_predicted", "local_true", "category_only"):
        assert evaluation["rows"][row]["bits_per_sample"]["mean"] == pytest.approx(8)
    assert evaluation["rows"]["real"]["bits_per_sample"]["n"] == 0


def test_the_report_and_its_silent_examples_are_written(out):
    assert {path.name for path in (out / "report").iterdir()} == {
        "evaluation.csv",
        "index.html",
        "scores.parquet",
        "strip.png",
        "examples",
    }
    assert 'id="attrition"' in (out / "report" / "index.html").read_text(encoding="utf-8")
    slugs = sorted(path.name.partition("_")[0] for path in (out / "report" / "examples").glob("*_silent.mp4"))
    assert slugs == ["disc", "square"]
    pictures = {"confusion", "confusion_frames", "reliability", "loudness", "missed", "spectrograms"}
    tables = {"confusion.csv", "reliability.csv"}
    assert {path.name for path in (out / "plots").iterdir()} == {f"{name}.png" for name in pictures} | tables


def test_a_second_run_writes_the_same_bytes(root, out, tmp_path):
    run_stage(root, tmp_path)
    for path in out.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(out)).read_bytes() == path.read_bytes(), path.name


def test_no_test_video_is_an_error_in_words(root):
    with pytest.raises(DataContractError, match="No test video has both sound and frames"):
        HeldOut(Folders(root / "videos", root / "audio", root / "frames"), [], 2, PARAMS.source)
    with pytest.raises(DataContractError, match="no usable training sound"):
        training_sounds([])


def clip(label, video_id, clip_index=0):
    return Clip(video_id, clip_index, label, "test", None, 8000)


def test_clips_are_chosen_by_id_with_all_clips_of_a_video():
    clips = [clip("B", "z"), clip("A", "y", 1), clip("A", "y"), clip("A", "x"), clip("A", "w")]
    chosen = [(each.label, each.video_id, each.clip_index) for each in choose_clips(clips, 2)]
    assert chosen == [("A", "w", 0), ("A", "x", 0), ("B", "z", 0)]
    assert choose_clips(reversed(clips), 9) == choose_clips(clips, 9)
    assert len(choose_clips(clips, 9)) == 5


def test_the_commonest_label_is_that_of_most_training_clips():
    def told(label, split, n):
        return [Clip(f"{label}{k}", 0, label, split, None, 8000) for k in range(n)]

    assert commonest_label([*told("B", "train", 3), *told("A", "train", 2), *told("A", "test", 9)]) == "B"
    assert commonest_label([*told("B", "train", 3), *told("A", "train", 3)]) == "A"
    assert commonest_label(told("A", "test", 1)) is None


def test_the_rendered_worlds_truth_is_moved_to_the_start_of_the_clip():
    """A clip that was cut at 1.2 s: what is heard in it begins when the moved truth says."""
    world = World(DEMO.source)
    scenes = ((video.video_id, world.scene(video.video_id)) for video in world.listed["Bell"])
    video_id, scene = next((video_id, scene) for video_id, scene in scenes if len(scene.impact_times_s()) > 5)
    whole = resample_poly(scene.waveform() / 32768, watched.SAMPLE_RATE, scene.sample_rate)
    cut = whole[round(1.2 * watched.SAMPLE_RATE) :].astype(np.float32)
    held_out = HeldOut.__new__(HeldOut)
    held_out._source = DEMO.source
    held_out._downloads = {(video_id, 0): {"clip_start_s": 1.2}}
    reference_s = held_out._reference_onsets(clip("Bell", video_id), cut, heard.EAR)
    _, recall, _ = metrics.onset_scores(reference_s, heard.EAR.find_onsets(cut), 0.05)
    assert recall > 0.8


def test_bits_are_fewer_where_the_network_knows_the_histogram():
    model = build_wavenet(WAVENET, len(CATEGORIES) + 4, watched.HOP)
    sheet = category_sheet("Disc", 1.0, 75, watched.FRAME_RATE)
    silence = np.zeros(75 * watched.HOP, np.float32)
    bias = np.zeros(256)
    bias[128] = np.log(255 * 3)
    model.get_layer("logits").bias.assign(bias)
    # Silence is class 128, to which the bias gives three quarters.
    bits = coding.real_sound_bits(Sampler.from_model(model), silence, sheet, CATEGORIES, with_curves=False)
    assert bits == pytest.approx(-np.log2(0.75), abs=1e-4)
    short = category_sheet("Disc", 1.0, 1, watched.FRAME_RATE)
    assert coding.real_sound_bits(Sampler.from_model(model), silence[: watched.HOP], short, CATEGORIES) is None


def test_onsets_of_clicks_are_found_and_silence_has_none():
    times_s = np.array([0.5, 1.1, 1.7, 2.6])
    found_s = heard.EAR.find_onsets(heard.knocks(times_s, 300))
    np.testing.assert_allclose(found_s, times_s, atol=0.03)
    assert not heard.EAR.find_onsets(np.zeros(16000, np.float32)).size
    assert not heard.EAR.find_onsets(np.full(16000, 1e-5, np.float32)).size


def test_noise_is_as_loud_as_it_is_told_to_be():
    loudness_db = np.repeat([-20.0, -60.0, -35.0], 40).astype(np.float32)
    measured = heard.EAR.measure_loudness(shape_noise(loudness_db, heard.EAR, seed=0))
    for middle in (20, 60, 100):
        assert measured[middle] == pytest.approx(loudness_db[middle], abs=1.5)


def test_a_shifted_sound_begins_with_silence_and_keeps_its_length():
    np.testing.assert_array_equal(shift(np.arange(1, 6, dtype=np.float32), 2), [0, 0, 1, 2, 3])


def test_a_sheet_is_cut_or_prolonged_to_the_length_of_the_sound():
    sheet = CueSheet(25, (Segment(0, 1, "A", 0.5), Segment(1, 2, "B", 0.5)), np.arange(50.0), np.ones(50))
    for n_frames in (48, 53):
        fitted = fit_length(sheet, n_frames)
        assert (fitted.n_frames, len(fitted.hit), fitted.segments[-1].end_s) == (n_frames, n_frames, n_frames / 25)
    assert fit_length(sheet, 20).segments == (Segment(0, 0.8, "A", 0.5),)
    assert fit_length(sheet, 53).loudness_db[-1] == 49


def test_the_majority_of_frames_names_a_sheet_and_gaps_count():
    def named(*segments):
        return majority_category(CueSheet(25, segments, np.zeros(100), np.zeros(100)))

    assert named(Segment(0, 1, "A", 0.9), Segment(1, 4, "B", 0.9)) == "B"
    assert named(Segment(0, 1.2, "A", 0.9)) is None
    assert named() is None
