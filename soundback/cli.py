"""The `soundback` command."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from soundback.errors import SoundbackError
from soundback.outputs import check_free
from soundback.params import load_params
from soundback.progress import show_progress

app = typer.Typer(
    name="soundback",
    help="Gives silent video its sound back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Models = Annotated[Path, typer.Option(help="Folder of the trained models.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file the models were trained with.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]


@contextmanager
def _sentences() -> Iterator[None]:
    """Ends in a sentence and exit code 2 where a user can act on what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        yield
    except SoundbackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@app.command()
def generate(
    video: Annotated[Path, typer.Argument(help="The video to give sound to.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write it: .mp4, .mov, .mkv or .webm.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another take.")] = 0,
    overwrite: Overwrite = False,
    models: Models = Path("data/models"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Writes VIDEO again with sound that fits what is seen. The picture is copied as it is."""
    with _sentences():
        from soundback.media import ffmpeg

        ffmpeg.probe(video)
        ffmpeg.check_output(out, overwrite=overwrite)
        from soundback.soundtrack import Soundtrack  # TensorFlow takes seconds to import: bad input is refused first.

        soundtrack = Soundtrack.load(models, params=load_params(params).soundtrack)
        with show_progress("Watching and sounding") as progress:
            sheet = soundtrack.generate(video, out, seed=seed, overwrite=overwrite, progress=progress)
        for segment in sheet.segments:
            typer.echo(
                f"{segment.start_s:8.2f} s to {segment.end_s:8.2f} s"
                f"  {segment.category} ({segment.confidence:.0%} sure)"
            )
        typer.echo(f"{out} has sound now.")


@app.command()
def cues(
    video: Annotated[Path, typer.Argument(help="The video to watch.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the cue sheet (.csv).")],
    overwrite: Overwrite = False,
    models: Models = Path("data/models"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Writes down what sounds when in VIDEO, and how loud: the cue sheet that `generate` sounds."""
    with _sentences():
        from soundback.media import ffmpeg

        ffmpeg.probe(video)
        check_free(out, overwrite=overwrite)
        from soundback.cues import write_cues
        from soundback.soundtrack import Soundtrack

        soundtrack = Soundtrack.load(models, params=load_params(params).soundtrack)
        with show_progress("Watching") as progress:
            write_cues(soundtrack.spot(video, progress), out)
        typer.echo(f"{out} is the cue sheet of {video}.")


@app.command()
def metrics(
    evaluation: Annotated[Path, typer.Argument(help="What the evaluate stage wrote.")] = Path(
        "data/metrics/evaluation.json"
    ),
) -> None:
    """Prints the evaluation table."""
    with _sentences():
        from soundback.judging.report import format_table

        if not evaluation.is_file():
            raise SoundbackError(f"There is no {evaluation}. Run `dvc repro`, or fetch it with `dvc pull`.")
        typer.echo(format_table(json.loads(evaluation.read_text(encoding="utf-8"))))


@app.command()
def prune(
    data: Annotated[Path, typer.Option(help="The folder of what DVC makes.")] = Path("data"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Removes what is left under data/ of labels that the params file no longer names. DVC's cache keeps it."""
    with _sentences():
        from soundback import dataset

        for path in dataset.prune(data, load_params(params).labels):
            typer.echo(f"Removed {path}: {params} names no label {path.stem}.")
