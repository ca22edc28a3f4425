"""Commands that measure."""

import json
from pathlib import Path
from typing import Annotated

import typer

from soundback.cli.shell import Overwrite, app, sentences
from soundback.errors import SoundbackError
from soundback.outputs import check_free
from soundback.progress import show_progress


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
    with sentences():
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
    with sentences():
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
    with sentences():
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
