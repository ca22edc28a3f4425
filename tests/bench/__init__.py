"""Benchmarks: `python -m tests.bench.NAME` prints a table with the machine named."""
