"""Commands that watch and sound videos."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundback.chatter import without_chatter
from soundback.cli.shell import Overwrite, app, sentences
from soundback.errors import SoundbackError
from soundback.media.containers import MUXERS, outline
from soundback.outputs import check_free
from soundback.progress import show_progress

if TYPE_CHECKING:
    from soundback.soundtrack import Soundtrack
    from soundback.takes import Take

Models = Annotated[Path, typer.Option(help="Folder of the trained models, or a bundle that `export` wrote.")]
ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", help="The params file the models were trained with; a bundle's own, or ./params.yaml."),
]
Category = Annotated[
    str | None, typer.Option(help="What it is, whatever is seen; when it sounds and how loud is still seen.")
]
WhenUnsure = Annotated[
    Literal["quiet", "best"], typer.Option(help="Where nothing is recognised: stay quiet, or sound what is likeliest.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, another take.")]
Temperature = Annotated[
    float | None, typer.Option(min=0.01, max=2, help="Less is cleaner, and duller; by default that of the params.")
]
From = Annotated[float | None, typer.Option("--from", min=0, help="Seconds: only from here on, as a preview.")]
To = Annotated[float | None, typer.Option("--to", min=0, help="Seconds: only up to here.")]
Mix = Annotated[
    Literal["replace", "keep", "under", "fill"],
    typer.Option(
        help="The video's own sound: drop it, add to it, lower it while ours sounds, or sound its silence only."
    ),
]
Loudness = Annotated[
    float | None,
    typer.Option(min=-70, max=-5, help="LUFS of the sound that is made (EBU R 128); by default as the cues say."),
]
Stems = Annotated[
    bool, typer.Option("--stems", help="Also write OUT_stems/: a wav for each category, and the original sound.")
]
Container = Annotated[
    Literal["mp4", "mov", "mkv", "webm", "wav"] | None,
    typer.Option("--format", help="Container of what is written, or wav for the sound alone; by default OUT's."),
]


@app.command()
def generate(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Videos, or folders of videos.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Where to write it: .mp4, .mov, .mkv, .webm or .wav; a folder for several videos."
        ),
    ],
    cues: Annotated[Path | None, typer.Option(help="Sound this cue sheet instead of what is seen.")] = None,
    category: Category = None,
    when_unsure: WhenUnsure = "quiet",
    seed: Seed = 0,
    temperature: Temperature = None,
    start_s: From = None,
    end_s: To = None,
    mix: Mix = "replace",
    loudness: Loudness = None,
    stems: Stems = False,
    container: Container = None,
    overwrite: Overwrite = False,
    models: Models = Path("data/models"),
    params: ParamsFile = None,
) -> None:
    """Writes VIDEO again with sound that fits what is seen. The picture is copied as it is.

    Of several videos or a folder, every one: what came of each stands in OUT/soundtracks.csv, and those that are done
    already are kept.
    """
    with sentences():
        suffix = _suffix(out, container)
        single = len(videos) == 1 and not videos[0].is_dir() and not out.is_dir()
        if single and container is not None and out.suffix.lower() != suffix:
            out = out.with_name(f"{out.name}{suffix}")
        if cues is not None and not single:
            raise SoundbackError("--cues is the cue sheet of one video: give one, and a file to write it to.")
        if cues is not None and (category is not None or when_unsure != "quiet"):
            raise SoundbackError("--cues says what sounds: --category and --when-unsure change what is seen, not that.")
        if start_s is not None and end_s is not None and start_s >= end_s:
            raise SoundbackError(f"--from {start_s:g} is not before --to {end_s:g}.")
        _check_videos(videos)
        if single:
            from soundback.media import muxing

            muxing.check_output(out, videos[0], overwrite=overwrite)
        from soundback.takes import Take

        take = Take(seed, category, when_unsure, temperature, start_s, end_s, mix, loudness, stems)
        if single:
            _generate_one(videos[0], out, cues, take, overwrite=overwrite, models=models, params=params)
        else:
            _generate_all(videos, out, suffix, take, overwrite=overwrite, models=models, params=params)


@app.command()
def render(
    cues: Annotated[Path, typer.Argument(help="The cue sheet, as `cues` wrote it, edited or not.")],
    video: Annotated[Path, typer.Argument(help="The video it is of.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write it: .mp4, .mov, .mkv, .webm or .wav.")],
    seed: Seed = 0,
    temperature: Temperature = None,
    start_s: From = None,
    end_s: To = None,
    mix: Mix = "replace",
    loudness: Loudness = None,
    stems: Stems = False,
    overwrite: Overwrite = False,
    models: Models = Path("data/models"),
    params: ParamsFile = None,
) -> None:
    """Sounds a cue sheet: `cues` and then `render` give what `generate` gives, and in between you may edit."""
    generate(
        [video],
        out,
        cues=cues,
        seed=seed,
        temperature=temperature,
        start_s=start_s,
        end_s=end_s,
        mix=mix,
        loudness=loudness,
        stems=stems,
        overwrite=overwrite,
        models=models,
        params=params,
    )


@app.command()
def cues(
    video: Annotated[Path, typer.Argument(help="The video to watch.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the cue sheet.")],
    form: Annotated[
        Literal["csv", "vtt"] | None,
        typer.Option(
            "--format",
            help="csv to edit and render, or vtt: a text track for who cannot hear or see; by default OUT's.",
        ),
    ] = None,
    category: Category = None,
    when_unsure: WhenUnsure = "quiet",
    overwrite: Overwrite = False,
    models: Models = Path("data/models"),
    params: ParamsFile = None,
) -> None:
    """Writes down what sounds when in VIDEO, and how loud: the cue sheet that `generate` sounds."""
    with sentences():
        named = out.suffix.lower().removeprefix(".")
        form = form or ("vtt" if named == "vtt" else "csv")
        if named in ("csv", "vtt") and named != form:
            raise SoundbackError(f"{out.name} is named as {named}, and --format says {form}. Say one of them.")
        _check_videos([video])
        check_free(out, overwrite=overwrite)
        from soundback.cue_files import write_captions, write_cues
        from soundback.takes import Take

        soundtrack = _load(models, params)
        with show_progress("Watching") as progress:
            sheet = soundtrack.spot(video, Take(category=category, when_unsure=when_unsure), progress)
        (write_cues if form == "csv" else write_captions)(sheet, out)
        for note in [] if category else soundtrack.unrecognised(sheet, video):
            typer.echo(note, err=True)
        typer.echo(f"{out} is the cue sheet of {video}.")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    models: Annotated[Path, typer.Option(help="Folder of the trained models.")] = Path("data/models"),
    params: Annotated[Path, typer.Option("--params", help="The params file they were trained with.")] = Path(
        "params.yaml"
    ),
    metrics: Annotated[Path, typer.Option(help="Folder of what the trainings and the evaluation measured.")] = Path(
        "data/metrics"
    ),
    lock: Annotated[Path, typer.Option(help="DVC's file that says which figures are of these models.")] = Path(
        "dvc.lock"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Packs the models into one folder to take to another machine, with all they need and a card about them.

    There: soundback generate VIDEO -o OUT --models FOLDER.
    """
    with sentences():
        from soundback.bundle import packing

        with without_chatter():
            packing.export(out, models=models, params=params, metrics=metrics, lock=lock, overwrite=overwrite)
        typer.echo(packing.describe(packing.read(out)))


@app.command()
def info(
    models: Annotated[Path, typer.Argument(help="A bundle that `export` wrote, or a folder of models.")] = Path(
        "data/models"
    ),
) -> None:
    """Says what models are: what they know, what they were trained on, how well they do, and their limits."""
    with sentences():
        from soundback.bundle import packing

        with without_chatter():
            bundle = packing.read(models)
        typer.echo(packing.describe(bundle))


@app.command("app")
def page(
    models: Models = Path("data/models"),
    params: ParamsFile = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this one lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    most_mb: Annotated[int, typer.Option(min=1, help="Largest upload, in megabytes.")] = 500,
    most_minutes: Annotated[float, typer.Option(min=0.1, help="Longest video, in minutes.")] = 30,
) -> None:
    """Opens a web page: drop a video, see its cue sheet, correct it, hear it, download it. Needs the extra `app`."""
    with sentences():
        try:
            with without_chatter():
                from soundback.app.serving import serve
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise SoundbackError("The page needs Gradio: pip install 'soundback[app]'") from error
        serve(
            models,
            params=params,
            host=host,
            port=port,
            most_mb=most_mb,
            most_minutes=most_minutes,
            ready=lambda address: typer.echo(f"The page is at {address}. Ctrl-C ends it."),
        )


def _suffix(out: Path, container: str | None) -> str | None:
    """The suffix of what is written; None where each video keeps its own.

    Raises:
      SoundbackError: when the name of the output and --format disagree.
    """
    named = out.suffix.lower()
    if container is None:
        return named if named in (*MUXERS, ".wav") else None
    if named in (*MUXERS, ".wav") and named != f".{container}" and not out.is_dir():
        raise SoundbackError(f"{out.name} is named as {named[1:]}, and --format says {container}. Say one of them.")
    return f".{container}"


def _check_videos(paths: Sequence[Path]) -> None:
    """Refuses, before seconds go into loading, what is not there or is no video."""
    for path in paths:
        if not path.is_dir():
            outline(path)


def _load(models: Path, params: Path | None) -> "Soundtrack":
    from soundback.bundle import packing
    from soundback.params import load_params

    if (models / packing.NAME).is_file():
        packing.read(models)  # What is damaged is named before seconds go into loading.
    with without_chatter():
        from soundback.soundtrack import Soundtrack  # TensorFlow takes seconds to import: bad input is refused first.

        return Soundtrack.load(models, params=load_params(params).soundtrack if params else None)


def _generate_one(
    video: Path,
    out: Path,
    cues: Path | None,
    take: "Take",
    *,
    overwrite: bool,
    models: Path,
    params: Path | None,
) -> None:
    from soundback.cue_files import read_cues

    if cues is not None:
        read_cues(cues)  # Its faults are named before seconds go into loading; categories that nobody knows, after.
    soundtrack = _load(models, params)
    sheet = read_cues(cues, soundtrack.categories) if cues is not None else None
    with show_progress("Watching and sounding", of_video=True) as progress:
        sounded = soundtrack.generate(video, out, cues=sheet, take=take, overwrite=overwrite, progress=progress)
    for segment in sounded.sheet.segments:
        typer.echo(
            f"{segment.start_s:8.2f} s to {segment.end_s:8.2f} s  {segment.category} ({segment.confidence:.0%} sure)"
        )
    for note in sounded.notes:
        typer.echo(note, err=True)
    typer.echo(f"{sounded.path} has sound now.")
    for stem in sounded.stems:
        typer.echo(f"{stem} is a part of it.")
    typer.echo(sounded.totals())


def _generate_all(
    paths: Sequence[Path],
    out: Path,
    suffix: str | None,
    take: "Take",
    *,
    overwrite: bool,
    models: Path,
    params: Path | None,
) -> None:
    from soundback.soundtracks import TABLE, Generate, find_videos, sound_videos

    if out.suffix and out.suffix.lower() in (*MUXERS, ".wav") and not out.is_dir():
        raise SoundbackError(f"{out} is named as one file; several videos need a folder to go to.")

    def load() -> Generate:
        return partial(_load(models, params).generate, take=take, overwrite=overwrite)

    with show_progress("Watching and sounding", of_video=True) as progress:
        outcomes = sound_videos(find_videos(paths), out, load, suffix=suffix, overwrite=overwrite, progress=progress)
    counts = Counter(each.status for each in outcomes)
    typer.echo(", ".join(f"{n} {status}" for status, n in counts.items()) + f": {out / TABLE}")
    for each in outcomes:
        if each.words:
            typer.echo(f"{each.video}: {each.words}", err=True)
    length_s, spent_s = sum(each.length_s for each in outcomes), sum(each.spent_s for each in outcomes)
    if spent_s:
        typer.echo(f"{length_s:.1f} s of video in {spent_s:.1f} s, {length_s / spent_s:.2f} times real time.")
    if not set(counts) <= {"ok", "kept"}:
        raise typer.Exit(1)
