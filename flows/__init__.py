"""Runs of the pipeline under Prefect. What depends on what is in dvc.yaml; nothing here repeats it."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

# Prefect reads these when it is first imported, so they must stand before any module of this package does that.
# What is set already stays: a run under someone else's Prefect server keeps that server's settings.
for _name, _value in {
    "PREFECT_HOME": str(PROJECT / ".prefect"),
    # The temporary server of a run without one takes 8 to 15 s to start, near Prefect's limit of 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Nothing calls out unless the user turns it on. The second UI calls out from the browser whatever is set.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)
