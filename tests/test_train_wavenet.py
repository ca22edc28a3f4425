"""The stage learns two tones from two labels, and the sampler sounds the tone of the category it is told."""

import csv
import json

import numpy as np
import pytest

from soundback import schemas
from soundback.cues import CueSheet, Segment, conditioning
from soundback.errors import DataContractError
from soundback.media.audio import mu_law_decode, mu_law_encode, write_wav
from soundback.model_files import load_model
from soundback.params import load_params
from soundback.sounding.sampler import Sampler
from soundback.sounding.wavenet import CUE_CONTEXT
from stages.train_wavenet import train_wavenet
from tests import watched

SAMPLE_RATE, FRAME_RATE, N_SECONDS = 1000, 25, 2
HOP = SAMPLE_RATE // FRAME_RATE
TONES = {"Drum": 60.0, "Bell": 190.0}
PARAMS = load_params()
TINY = PARAMS.wavenet.model_copy(
    update={
        "layers": 6,
        "cycles": 1,
        "kernel_size": 2,
        "residual_channels": 16,
        "gate_channels": 16,
        "skip_channels": 24,
        "cue_channels": 8,
        "crop_frames": 4,
        "steps": 240,
        "batch_size": 4,
        "learning_rate": 0.01,
        "ema_decay": 0.95,
        "cold_start": 0.15,
        "history_noise": 3.0,
    }
)


def write_tones(root, splits=("train", "train", "train", "train", "validation")):
    """A folder per label, clips of one tone with random phase in a little noise."""
    generator = np.random.default_rng(0)
    time_s = np.arange(N_SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    for label, hz in TONES.items():
        rows = []
        for index, split in enumerate(splits):
            name = f"{label}{index}_00.wav"
            waveform = 0.4 * np.sin(2 * np.pi * (hz * time_s + generator.random()))
            waveform += 0.01 * generator.normal(size=len(time_s))
            (root / label.lower()).mkdir(parents=True, exist_ok=True)
            write_wav(root / label.lower() / name, waveform.astype(np.float32), SAMPLE_RATE)
            rows.append(
                {"video_id": f"{label}{index}", "clip_index": 0, "label": label, "split": split, "status": "ok"}
                | {"path": name, "sample_rate": SAMPLE_RATE, "n_samples": len(waveform), "silence_share": 0.0}
            )
        schemas.write_table(rows, schemas.AUDIO, root / label.lower() / "audio.parquet")
    watched.write_duplicates(root.parent)


def run_stage(root, **changes):
    train_wavenet(
        root / "audio",
        root / "duplicates.parquet",
        root / "models" / "wavenet.keras",
        root / "metrics.json",
        root / "plots",
        params=TINY.model_copy(update=changes),
        sound=PARAMS.audio.model_copy(update={"sample_rate": SAMPLE_RATE}),
        stored=PARAMS.frames.model_copy(update={"frame_rate": FRAME_RATE}),
        cues=PARAMS.cues,
        labels=[label.lower() for label in TONES],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("tones")
    write_tones(root / "audio")
    run_stage(root)
    return root


def cues_of(category, n_frames):
    whole = Segment(0.0, n_frames / FRAME_RATE, category, 1.0)
    loudness_db = np.full(n_frames, 20 * np.log10(0.4 / np.sqrt(2)), np.float32)
    sheet = CueSheet(FRAME_RATE, (whole,), loudness_db, np.zeros(n_frames, np.float32))
    return conditioning(sheet, sorted(TONES))


def test_it_learns_far_more_than_the_histogram_and_says_all_baselines(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["bits_per_sample"] < metrics["histogram_bits"] - 1.5
    assert metrics["linear_prediction_bits"] < metrics["previous_sample_bits"] < metrics["histogram_bits"]
    assert (metrics["steps_done"], metrics["stopped_by"]) == (TINY.steps, "steps")
    with (trained / "plots" / "plots" / "metrics" / "validation.tsv").open() as file:
        curve = [float(row["validation"]) for row in csv.DictReader(file, delimiter="\t")]
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("category", sorted(TONES))
def test_each_category_sounds_its_own_tone_ten_times_louder_than_the_other(trained, category):
    model, _ = load_model(trained / "models" / "wavenet.keras", "wavenet")
    sampler = Sampler.from_model(model)
    n_frames = 2 * FRAME_RATE
    chances = np.random.default_rng(0).random(n_frames * HOP)
    classes = sampler.sample(sampler.start(), sampler.project(cues_of(category, n_frames)), chances, 0.9)
    power = np.abs(np.fft.rfft(mu_law_decode(classes)[SAMPLE_RATE:] * np.hanning(SAMPLE_RATE))) ** 2
    own = TONES[category]
    (other,) = set(TONES.values()) - {own}
    at = {hz: power[int(hz) - 3 : int(hz) + 4].sum() for hz in TONES.values()}
    assert at[own] > 10 * at[other]
    assert at[own] > 0.5 * power.sum()


def test_the_trained_network_sampled_fast_says_what_keras_says(trained):
    model, card = load_model(trained / "models" / "wavenet.keras", "wavenet")
    sampler = Sampler.from_model(model)
    n_frames, history = 20, -(-card["receptive_field"] // card["hop"])
    time_s = np.arange(n_frames * HOP + 1) / SAMPLE_RATE
    classes = mu_law_encode(0.4 * np.sin(2 * np.pi * 60 * time_s))
    cues = cues_of("Drum", n_frames + 2 * CUE_CONTEXT)
    expected = model((classes[None, :-1], cues[None])).numpy()[0]
    state = sampler.start()
    state.previous = int(classes[0])
    found = sampler.logits(classes[1:], sampler.project(cues)[CUE_CONTEXT:-CUE_CONTEXT], state)
    np.testing.assert_allclose(found[history * HOP :], expected[-(n_frames - history) * HOP :], atol=1e-4, rtol=0)


def test_the_card_says_what_the_model_takes_to_use_it(trained):
    _, card = load_model(trained / "models" / "wavenet.keras", "wavenet")
    assert card["categories"] == ["Bell", "Drum"]
    assert (card["sample_rate"], card["frame_rate"], card["hop"]) == (SAMPLE_RATE, FRAME_RATE, HOP)
    assert card["receptive_field"] == TINY.receptive_field
    # The measured level of a sine of amplitude 0.4, and less at the clips' ends.
    assert card["loudness_high_db"] == pytest.approx(20 * np.log10(0.4 / np.sqrt(2)), abs=0.5)
    assert card["hit_scale"] > 0


def test_a_split_without_sound_is_named(tmp_path):
    write_tones(tmp_path / "audio", splits=("train", "test"))
    with pytest.raises(DataContractError, match="No clip of the validation split has usable sound"):
        run_stage(tmp_path)
