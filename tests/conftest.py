"""What every test needs before it is imported."""

# Sets Prefect's environment, which must stand before any test module imports Prefect. And all of Prefect is imported
# here, before any TensorFlow: it resets logging, and TensorFlow's would then close the stream that pytest reads.
import flows.pipeline  # noqa: F401
