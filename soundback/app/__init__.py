"""The page that `soundback app` serves: drop a video, see what is to sound when, correct it, hear it."""

import os

# Read when Gradio and what it brings are imported: here is the only place that comes before all of these.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
