"""What a run made, as artifacts for Prefect's pages: numbers, pictures, and what was lost on the way."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from slugify import slugify

from soundback import attrition
from soundback.attrition import Account, Tables
from soundback.errors import SoundbackError
from soundback.params import load_params

DATA = Path("data")
DIGITS = 4

Metrics = dict[str, float]


def read_metrics(folder: Path = DATA / "metrics") -> Metrics:
    """The numbers of the metrics files, by names like classifier.accuracy; of an interval its middle."""
    found: Metrics = {}
    for path in sorted(folder.glob("*.json")):
        _collect(json.loads(path.read_text(encoding="utf-8")), path.stem, found)
    return found


def show_metrics(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """A table of all metrics, and how each differs from what was there before: what the last run kept."""
    # The pages cut off on the right what is too wide, so the long names come last; a lone dash would become a bullet.
    rows = [
        {
            "now": round(value, DIGITS),
            "last run": round(before[name], DIGITS) if name in before else "",
            "change": _change(value, before.get(name)),
            "metric": name,
        }
        for name, value in after.items()
    ]
    if rows:
        create_table_artifact(rows, key="metrics", description="All metrics, and the change since the last run")


def show_pictures(folder: Path = DATA / "plots") -> None:
    """Each plot and spectrogram that is there."""
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        content = base64.b64encode(path.read_bytes()).decode()
        create_image_artifact(f"data:image/png;base64,{content}", key=slugify(name), description=str(path))


def show_report(data: Path = DATA) -> None:
    """What was lost on the way from the label to a usable clip, and where the report is."""
    params = load_params()
    wanted = attrition.count_wanted(params.source, params.dataset)
    try:
        accounts = attrition.draw_up(Tables.of(data), params.labels, wanted=wanted)
    except SoundbackError as error:
        lines = [str(error)]
    else:
        lines = _as_markdown(accounts)
    report = (data / "report" / "index.html").absolute()
    if report.exists():
        where = f"The report, on the machine that ran this: [{report}]({report.as_uri()})"
        lines += ["", f"{where}. Browsers follow no link from here to a file: copy its address into a new tab."]
    create_markdown_artifact(
        "\n".join(lines), key="dataset", description="Videos wanted, had, usable and lost, and why"
    )


def _as_markdown(accounts: Sequence[Account]) -> list[str]:
    lines = ["| label | wanted | had | usable | lost | why |", "|---|---|---|---|---|---|"]
    for account in [*accounts, attrition.summarise(accounts)]:
        why = ", ".join(f"{n} {cause}" for cause, n in account.lost.items())
        numbers = (account.wanted, account.had, account.usable, account.wanted - account.usable)
        cells = [account.label.replace("|", "\\|"), *map(str, numbers), why]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _change(value: float, before: float | None) -> str:
    if before is None:
        return "new"
    return "" if value == before else f"{value - before:+.{DIGITS}f}"


def _collect(value: object, name: str, found: Metrics) -> None:
    if isinstance(value, dict) and "mean" in value:
        _collect(value["mean"], name, found)
    elif isinstance(value, dict):
        for key, each in value.items():
            # The same numbers as in `watching`, with what surrounds them.
            if key != "watching_intervals":
                _collect(each, f"{name}.{key}", found)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found[name] = float(value)
