"""Commands about the dataset, and about this machine."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from soundback.cli.shell import Overwrite, ParamsFile, app, sentences
from soundback.errors import ParamsError
from soundback.outputs import check_free
from soundback.params import TableSource, load_params
from soundback.progress import show_progress


@app.command()
def doctor(
    live: Annotated[
        bool, typer.Option("--live", help="Also fetch a label and two videos, and say which step failed.")
    ] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Says whether this machine can do what the params ask for, and what to do where it cannot."""
    with sentences():
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
    with sentences():
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
    with sentences():
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
    with sentences():
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
    with sentences():
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
    with sentences():
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
    with sentences():
        from soundback import retrying

        for key, n_rows in retrying.retry(labels, retrying.parse_statuses(status), load_params(params).labels).items():
            typer.echo(f"{key}: {n_rows} asked again." if n_rows else f"{key}: none failed so; nothing to ask again.")
        typer.echo("What follows from it is built by `dvc repro`.")
