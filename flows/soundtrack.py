"""Soundtracks for a folder of videos, as a Prefect flow: it only reads models, so it runs beside everything else."""

import csv
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows import runs
from flows.programs import begin, run, stop_all
from flows.told import Told
from soundback.soundtracks import TABLE

SOUNDBACK = "from soundback.cli import app; app()"


@flow(name="soundtrack")
def soundtrack(
    folder: str,
    out: str,
    seed: Annotated[int, Field(ge=0)] = 0,
    category: str = "",
    when_unsure: Literal["quiet", "best"] = "quiet",
    mix: Literal["replace", "keep", "under", "fill"] = "replace",
    overwrite: bool = False,
    models: str = "data/models",
) -> State[None]:
    """Gives every video of a folder its sound back; one that fails does not keep the others from it.

    Args:
      folder: The folder of videos, on the machine of the worker.
      out: Where they go with sound, and soundtracks.csv with what came of each. Made if missing.
      seed: Another seed, another take.
      category: What the videos show, whatever is seen; empty for what is seen.
      when_unsure: Where nothing is recognised: stay quiet, or sound what is likeliest.
      mix: A video's own sound: drop it, add to it, lower it while ours sounds, or sound its silence only.
      overwrite: Make those anew that are there already.
      models: The folder of the trained models.
    """
    if runs.is_deployed():
        runs.die_with_worker()
    begin()
    told = Told("soundtrack", get_run_logger())
    arguments = ["generate", folder, "--out", out, "--seed", str(seed), "--models", models]
    arguments += ["--when-unsure", when_unsure, "--mix", mix]
    arguments += ["--category", category] if category else []
    arguments += ["--overwrite"] if overwrite else []
    try:
        status = run(SOUNDBACK, arguments, told, settings={})
    except BaseException:  # Cancelled or interrupted.
        stop_all()
        raise
    table = Path(out) / TABLE
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            create_table_artifact(list(csv.DictReader(file)), key="soundtracks", description=f"What came of {folder}")
    return Completed(message=told.last_words()) if status == 0 else Failed(message=told.last_words())
