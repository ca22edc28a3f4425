"""The `soundback` command."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from soundback.errors import ParamsError, SoundbackError
from soundback.outputs import check_free
from soundback.params import TableSource, load_params
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
    video: Annotated[Path, typer.Argument(help="The video to give sound to, or a folder of videos.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write it: .mp4, .mov, .mkv or .webm; a folder for a folder.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another take.")] = 0,
    overwrite: Overwrite = False,
    models: Models = Path("data/models"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Writes VIDEO again with sound that fits what is seen. The picture is copied as it is.

    Of a folder, every video: what came of each stands in soundtracks.csv, and those that are done already are kept.
    """
    with _sentences():
        if video.is_dir():
            _generate_all(video, out, seed=seed, overwrite=overwrite, models=models, params=params)
            return
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


def _generate_all(folder: Path, out: Path, *, seed: int, overwrite: bool, models: Path, params: Path) -> None:
    from soundback.soundtracks import TABLE, Generate, sound_folder

    def load() -> Generate:
        from soundback.soundtrack import Soundtrack

        soundtrack = Soundtrack.load(models, params=load_params(params).soundtrack)
        return partial(soundtrack.generate, seed=seed, overwrite=overwrite)

    with show_progress("Watching and sounding") as progress:
        outcomes = sound_folder(folder, out, load, overwrite=overwrite, progress=progress)
    counts = Counter(each.status for each in outcomes)
    typer.echo(", ".join(f"{n} {status}" for status, n in counts.items()) + f": {out / TABLE}")
    for each in outcomes:
        if each.reason:
            typer.echo(f"{each.video}: {each.reason}", err=True)
    if not set(counts) <= {"ok", "kept"}:
        raise typer.Exit(1)


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
    within: Annotated[
        Path | None, typer.Option(help="A YAML file of limits, NAME: [least, most]; ends with 1 where one is left.")
    ] = None,
) -> None:
    """Prints the evaluation table."""
    with _sentences():
        from soundback.judging.limits import find_outside, read_limits
        from soundback.judging.plain_table import format_table

        limits = read_limits(within) if within else {}
        if not evaluation.is_file():
            raise SoundbackError(f"There is no {evaluation}. Run `dvc repro`, or fetch it with `dvc pull`.")
        figures = json.loads(evaluation.read_text(encoding="utf-8"))
        typer.echo(format_table(figures))
        if outside := find_outside(figures, limits):
            typer.echo("\n".join([f"Outside the limits of {within}:", *(f"  {line}" for line in outside)]), err=True)
            raise typer.Exit(1)
        if limits:
            typer.echo(f"All {len(limits)} figures of {within} are inside their limits.")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Scores of one evaluation: data/report/scores.parquet.")],
    second: Annotated[Path, typer.Argument(help="Scores of another, of the same videos.")],
    row: Annotated[str, typer.Option(help="The row of the table to compare.")] = "local_predicted",
) -> None:
    """Says in what FIRST differs from SECOND, over the same videos and with intervals: one experiment from another."""
    with _sentences():
        from soundback.judging import scores

        differences = scores.compare(scores.read_scores(first), scores.read_scores(second), scores.BOOTSTRAP)
        typer.echo(scores.format_differences(differences, str(first), str(second), row=row))


@app.command()
def evaluate(
    generated: Annotated[Path, typer.Option(help="Folder of the sounds or videos in question, of any system.")],
    reference: Annotated[Path, typer.Option(help="Folder of the real ones, under the same names.")],
    training: Annotated[
        Path | None, typer.Option(help="Any tree of real sound to tell distances to; by default the references.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="What people say, .json or .parquet: rows {name, category, onsets_s}.")
    ] = None,
    judge: Annotated[Path, typer.Option(help="The judge's file; without one, nothing is said of kinds.")] = Path(
        "data/models/judge.keras"
    ),
    out: Annotated[Path | None, typer.Option(help="Also write the table, as JSON.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Also write every file's scores, as Parquet.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Earlier --scores: paired differences over the files that both have.")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=1, help="Hz at which all is heard; the judge's, or 16000 without one.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Scores a folder of generated sounds or videos against a folder of real ones; docs/evaluating.md says how."""
    with _sentences():
        for path in filter(None, (out, scores)):
            check_free(path, overwrite=overwrite)
        from soundback.judging import scores as tables
        from soundback.judging.pairs import find_pairs

        find_pairs(generated, reference)  # TensorFlow takes seconds to import: bad input is refused first.
        earlier = tables.read_scores(against) if against is not None else None
        from soundback.judging.folders import evaluate_folders

        with show_progress("Listening") as progress:
            results = evaluate_folders(
                generated,
                reference,
                judge=judge,
                sample_rate=sample_rate,
                training=training,
                truth=truth,
                progress=progress,
            )
        typer.echo(tables.format_evaluation(results.evaluation))
        if against is not None and earlier is not None:
            differences = tables.compare(results.scores, earlier, tables.BOOTSTRAP)
            typer.echo("\n" + tables.format_differences(differences, "this", str(against), row="generated"))
        if scores is not None:
            tables.write_scores(results.scores, scores)
        if out is not None:
            tables.write_evaluation(results.evaluation, out)


@app.command()
def doctor(
    live: Annotated[
        bool, typer.Option("--live", help="Also fetch a label and two videos, and say which step failed.")
    ] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Says whether this machine can do what the params ask for, and what to do where it cannot."""
    with _sentences():
        from soundback.doctor import checks
        from soundback.doctor.live import try_source

        wanted = load_params(params)
        findings = []
        for finding in chain(checks.examine(wanted), try_source(wanted) if live else ()):
            findings.append(finding)
            typer.echo(f"{finding.verdict:8} {finding.name:19} {finding.words}")
        if n_faults := sum(finding.verdict == "fault" for finding in findings):
            typer.echo(f"{n_faults} fault(s): what to do stands beside them.", err=True)
            raise typer.Exit(1)


@app.command()
def attrition(
    plot: Annotated[Path | None, typer.Option(help="Also draw it, as .png, .svg or .pdf.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A git revision: what was lost since its tables, as dvc.lock pins them.")
    ] = None,
    overwrite: Overwrite = False,
    data: Annotated[Path, typer.Option(help="The folder of what DVC makes.")] = Path("data"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Says per label how many videos were wanted and had, how many were lost, and why."""
    with _sentences():
        from rich.console import Console

        from soundback import attrition, pinned

        if plot is not None:
            check_free(plot, overwrite=overwrite)
        wanted, tables = load_params(params), attrition.Tables.of(data)
        accounts = attrition.draw_up(
            tables, wanted.labels, wanted=attrition.count_wanted(wanted.source, wanted.dataset)
        )
        Console().print(attrition.as_table(accounts))
        if plot is not None:
            attrition.write_plot(accounts, plot)
            typer.echo(f"{plot} shows it.")
        if against is not None:
            before = pinned.follow_pinned(against, list(wanted.labels), data.parent)
            changes = pinned.compare(before, attrition.follow_videos(tables, wanted.labels))
            Console().print("", pinned.as_table(changes, against))


@app.command()
def verify() -> None:
    """Says whether data/ is what dvc.lock says, byte by byte; and of each video that is not, what is wrong with it."""
    with _sentences():
        from rich.console import Console

        from soundback import verifying

        differences = verifying.verify()
        if not differences:
            typer.echo("All that is in data/ is what dvc.lock says.")
            return
        Console().print(verifying.as_table(differences))
        counts = Counter(each.kind for each in differences)
        typer.echo(", ".join(f"{n} {kind}" for kind, n in counts.items()), err=True)
        raise typer.Exit(1)


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


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="Holds a folder of videos for each label: FOLDER/LABEL/*.mp4.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table; dvc.yaml reads videos.csv.")] = Path(
        "videos.csv"
    ),
    params: Annotated[Path, typer.Option("--params", help="The params file to name the labels in.")] = Path(
        "params.yaml"
    ),
) -> None:
    """Lists the videos of FOLDER as a source of their own, and names their labels in params.yaml."""
    with _sentences():
        from soundback import dataset
        from soundback.sources import clip_folder
        from soundback.sources.own_videos import effective_split

        settings = clip_folder.choose_settings(params)
        shares = load_params(settings).dataset
        with show_progress(f"Reading {folder}") as progress:
            rows = clip_folder.update_table(out, folder, dataset=shares, progress=progress)
        changed = clip_folder.write_params(params, settings, {row.label for row in rows})
        named = load_params(params).labels
        for key, label in named.items():
            splits = Counter(effective_split(row, shares) for row in rows if row.label == label)
            typer.echo(
                f"{splits.total():6d} videos  {label} ({key}): "
                f"{splits['train']} to train on, {splits['validation']} to validate with, {splits['test']} to test on"
            )
        if changed:
            for path in dataset.prune(params.parent / "data", named):
                typer.echo(f"Removed {path}: {params} names no label {path.stem}.")
        typer.echo(f"{out} lists them and {params} names their labels. Next: dvc repro")


@app.command()
def labels(
    count: Annotated[int, typer.Argument(min=2, help="How many, from the vocabulary's beginning: the most frequent.")],
    per_branch: Annotated[int, typer.Option(min=1, help="How many share the stages of one branch.")] = 50,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Names the COUNT most frequent labels of YouTube-8M in params.yaml, in branches that many of them share."""
    with _sentences():
        from soundback.sources import naming, youtube8m

        said = load_params(params)
        if isinstance(said.source, TableSource):
            raise ParamsError(f"{params} has a table as its source: `soundback table` names its labels.")
        with youtube8m.open_endpoints(said.source) as endpoints:
            names = [(label.name, label.mid) for label in youtube8m.read_vocabulary(endpoints)]
        keys = naming.share_branches(names, said.labels, count=count, per_branch=per_branch)
        naming.write_labels(params, params, keys, note="by name, MID or index")
        n_branches = len({key.split("/")[0] for key in keys})
        typer.echo(f"{params} names {len(keys)} labels in {n_branches} branches. Next: soundback prune, dvc repro")


@app.command()
def retry(
    labels: Annotated[list[str], typer.Argument(help="Labels of params.yaml, by folder name or by label.")],
    status: Annotated[str, typer.Option(help="Which failures, with commas between.")] = "network,rate_limited",
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Asks again for the videos of LABELS that failed with one of these statuses, and keeps all others."""
    with _sentences():
        from soundback import retrying

        for key, n_rows in retrying.retry(labels, retrying.parse_statuses(status), load_params(params).labels).items():
            typer.echo(f"{key}: {n_rows} asked again." if n_rows else f"{key}: none failed so; nothing to ask again.")
        typer.echo("What follows from it is built by `dvc repro`.")
