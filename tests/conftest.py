"""What every test needs before it is imported."""

import flows  # noqa: F401 (sets Prefect's environment, which must stand before any test module imports Prefect)
