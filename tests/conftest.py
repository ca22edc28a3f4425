"""What every test needs before it is imported."""

import signal

# Sets Prefect's environment, which must stand before any test module imports Prefect. And all of Prefect is imported
# here, before any TensorFlow: it resets logging, and TensorFlow's would then close the stream that pytest reads.
import flows.pipeline  # noqa: F401

# A shell that starts pytest in the background has it ignore Ctrl-C, and so would all it starts; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
