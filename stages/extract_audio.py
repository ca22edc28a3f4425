"""Strips the sound of the downloaded clips, brings it to one loudness and stores it as mono wav."""

import logging
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from soundback import schemas
from soundback.doctor import checks
from soundback.errors import MediaError
from soundback.executors import open_workers
from soundback.media import audio, ffmpeg, loudness
from soundback.outputs import whole_folder
from soundback.params import Audio, load_params
from soundback.progress import show_progress
from stages import each_label, stage_process

log = logging.getLogger(__name__)


def extract_audio(videos: Path, sounds: Path, *, params: Audio) -> None:
    """Writes a wav file for each clip with usable sound, and a `schemas.AUDIO` row for every clip that downloaded."""
    downloads = schemas.read_table(videos / "downloads.parquet", schemas.DOWNLOADS).to_pylist()
    clips = sorted((row for row in downloads if row["status"] == "ok"), key=_order)
    with whole_folder(sounds) as folder, open_workers() as workers, show_progress("Extracting sound") as progress:
        # Absolute, for workers that run elsewhere.
        work = partial(_extract, videos=videos.absolute(), folder=folder.absolute(), params=params)
        rows = []
        for row in workers.executor.map(work, clips):
            rows.append(row)
            progress(len(rows), len(clips))
        schemas.write_table(rows, schemas.AUDIO, folder / "audio.parquet")
    counts = Counter(str(row["status"]) for row in rows)
    failed = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()) if status != "ok")
    log.info("%d of %d clips have usable sound%s", counts["ok"], len(rows), f"; not: {failed}" if failed else "")


def _order(row: dict[str, object]) -> tuple[object, object]:
    return row["video_id"], row["clip_index"]


def _extract(clip: dict[str, object], *, videos: Path, folder: Path, params: Audio) -> dict[str, object]:
    """Writes the sound of one clip if it is of use; returns its row."""
    row = {name: clip[name] for name in ("video_id", "clip_index", "label", "split")}
    path = videos / str(clip["path"])
    name = f"{clip['video_id']}_{clip['clip_index']:02d}.wav"
    try:
        with TemporaryDirectory(dir=folder) as temporary:
            return row | _normalise(path, Path(temporary) / name, folder / name, params)
    except MediaError as error:
        # The folder may be anywhere; the table must be the same everywhere.
        reason = str(error).replace(str(path), path.name)
        return row | {"status": "no_audio" if error.status == "no_audio" else "corrupt", "reason": reason}


def _normalise(path: Path, decoded: Path, out: Path, params: Audio) -> dict[str, object]:
    """Writes the sound of a video at the wanted loudness, by way of `decoded`; returns what its row tells of it."""
    # Twice through a file: the gain is known when all was heard, and long sound fits into no memory.
    audio.write_wav_pieces(decoded, ffmpeg.read_sound(path, sample_rate=params.sample_rate), params.sample_rate)
    measured = loudness.measure(
        audio.read_wav_pieces(decoded), sample_rate=params.sample_rate, silence_db=params.silence_db
    )
    duration_s = measured.n_samples / params.sample_rate
    if duration_s < params.min_duration_s:
        reason = f"{duration_s:.2f} s of sound; audio.min_duration_s asks for {params.min_duration_s:g} s."
        return {"status": "too_short", "reason": reason}
    if measured.silence_share == 1:
        return {"status": "silent", "reason": f"Never louder than {params.silence_db:g} dBFS."}
    gain = loudness.choose_gain(measured, params)
    audio.write_wav_pieces(out, map(gain.apply, audio.read_wav_pieces(decoded)), params.sample_rate)
    before = measured.loudness_lufs()
    return {
        "status": "ok",
        "path": out.name,
        "sample_rate": params.sample_rate,
        "n_samples": measured.n_samples,
        "loudness_lufs_in": None if before is None else round(before, 3),
        "gain_db": gain.gain_db,
        "gain_limited_by": gain.limited_by,
        "silence_share": measured.silence_share,
    }


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        checks.require(params, "extract_audio")
        branch, (videos, sounds) = sys.argv[1], map(Path, sys.argv[2:])
        each_label(
            params.labels,
            branch,
            lambda label: extract_audio(videos / label, sounds / label, params=params.audio),
        )
