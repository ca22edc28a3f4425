"""A world of two shapes for the tests of the watchers: what moves is loud, a flash is a hit."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from soundback import schemas
from soundback.media.shards import ClipFrames, write_shards
from soundback.params import load_params

FRAME_RATE = 25
SAMPLE_RATE = 8000
HOP = SAMPLE_RATE // FRAME_RATE
SIZE = 32
LABELS = {"disc": "Disc", "square": "Square"}
QUIET, LOUD = 0.003, 0.05


def film(label: str, rng: np.random.Generator, n_frames: int = 75) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [n_frames, SIZE, SIZE] and their sound float32 [n_frames * HOP]."""
    turns = np.sort(rng.choice(np.arange(10, n_frames - 10), 2, replace=False))
    moves = (np.searchsorted(turns, np.arange(n_frames), side="right") + rng.integers(2)) % 2 == 1
    flashes = np.arange(rng.integers(4, 12), n_frames - 2, 17)
    place = (rng.uniform(8, 24) + np.cumsum(moves) * rng.choice([-1.5, 1.5])) % SIZE
    height, radius = rng.uniform(10, 22), rng.uniform(6, 9)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    frames = np.empty((n_frames, SIZE, SIZE))
    for k in range(n_frames):
        across, down = (x - place[k] + SIZE / 2) % SIZE - SIZE / 2, y - height
        edge = np.maximum(abs(across), abs(down)) / radius
        inside = across**2 + down**2 < radius**2 if label == "Disc" else (edge > 0.5) & (edge < 1)
        frames[k] = np.where(inside, 200, 60) + 50 * (k in flashes) + rng.normal(0, 3, (SIZE, SIZE))
    waveform = rng.normal(0, 1, n_frames * HOP) * np.repeat(np.where(moves, LOUD, QUIET), HOP)
    ring = np.exp(-np.arange(4 * HOP) / 150) * np.sin(np.arange(4 * HOP) * 0.8) * 0.7
    for k in flashes:
        waveform[k * HOP : (k + 4) * HOP] += ring[: len(waveform) - k * HOP]
    return np.clip(frames, 0, 255).astype(np.uint8), waveform.astype(np.float32)


def write_frames(clips: list[tuple[str, str, str, np.ndarray]], folder: Path, group_frames: int = 64) -> None:
    """Writes (video_id, label, split, frames) of each clip into a folder of shards."""
    given = {
        "size": clips[0][3].shape[1],
        "frame_rate": FRAME_RATE,
        "encoding": "png",
        "row_group_frames": group_frames,
    }
    told = [ClipFrames(video_id, 0, label, split, [frames]) for video_id, label, split, frames in clips]
    write_shards(told, folder, params=load_params().frames.model_copy(update=given))


def write_dataset(
    root: Path, *, n_train: int, n_validation: int, n_test: int = 0, names: Mapping[str, str] = LABELS
) -> None:
    """Writes root/frames, root/audio and root/duplicates.parquet, with so many videos of each label."""
    rng = np.random.default_rng(0)
    for slug, shape in LABELS.items():
        label = names[slug]
        clips, rows = [], []
        splits = ["train"] * n_train + ["validation"] * n_validation + ["test"] * n_test
        for number, split in enumerate(splits):
            video_id = f"{slug}{number:03d}"
            frames, waveform = film(shape, rng)
            clips.append((video_id, label, split, frames))
            rows.append(audio_row(video_id, label, split, len(waveform)))
            (root / "audio" / slug).mkdir(parents=True, exist_ok=True)
            soundfile.write(root / "audio" / slug / f"{video_id}_00.wav", waveform, SAMPLE_RATE, subtype="PCM_16")
        write_frames(clips, root / "frames" / slug)
        schemas.write_table(rows, schemas.AUDIO, root / "audio" / slug / "audio.parquet")
    write_duplicates(root)


def write_duplicates(root: Path, *video_ids: str) -> None:
    """Writes root/duplicates.parquet: training clips that resemble a test clip, as find_duplicates would find them."""
    of = {"of_video_id": "t", "of_clip_index": 0, "of_label": "Disc", "of_split": "test", "by": "both", "distance": 0.0}
    rows = [{"video_id": each, "clip_index": 0, "label": "Disc", "split": "train"} | of for each in video_ids]
    schemas.write_table(rows, schemas.DUPLICATES, root / "duplicates.parquet")


def audio_row(video_id: str, label: str, split: str, n_samples: int) -> dict[str, object]:
    """A row of an audio table, of a clip that is ok."""
    return {
        "video_id": video_id,
        "clip_index": 0,
        "label": label,
        "split": split,
        "status": "ok",
        "path": f"{video_id}_00.wav",
        "sample_rate": SAMPLE_RATE,
        "n_samples": n_samples,
        "gain_db": 0.0,
        "gain_limited_by": "loudness",
        "silence_share": 0.0,
    }


def silence(table: Path, video_ids: list[str]) -> None:
    """Marks some clips of an audio table as silent."""
    rows = schemas.read_table(table, schemas.AUDIO).to_pylist()
    for row in rows:
        if row["video_id"] in video_ids:
            row |= {"status": "silent", "reason": "quieter than -60 dBFS", "path": None}
    schemas.write_table(rows, schemas.AUDIO, table)
