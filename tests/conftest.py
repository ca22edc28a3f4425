"""What every test needs before it is imported."""

import signal

# Sets Prefect's environment, which must stand before any test module imports Prefect. And all of Prefect is imported
# here, before any TensorFlow: it resets logging, and TensorFlow's would then close the stream that pytest reads.
import flows.pipeline  # noqa: F401

# A shell that starts pytest in the background has it ignore Ctrl-C, and so would all it starts; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    "test_smoke",
    "test_chaos",
    "test_sync",
    "test_kill",
    "test_reproducible",
    "test_paper_stages",
)
"""Files that take minutes. What begins last should be short: the other worker has nothing to do beside it."""

TABLES = {
    "soundtracks": "film                                          in    picture s  sound s  frames  off ms   picture",
    "sync": "cues       rate  start, ms   10 min, ms  drift, ms",
    "memory": "of 10 s, MB  of 1 h, MB",
}
"""Of each table that tests print: its head."""


def pytest_collection_modifyitems(items):
    """The longest files first; all others stay in their order."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_terminal_summary(terminalreporter):
    """Prints the tables whose rows tests recorded: workers that run tests side by side have no terminal."""
    for table, head in TABLES.items():
        reports = [each for outcome in ("passed", "failed") for each in terminalreporter.stats.get(outcome, [])]
        rows = [value for report in reports for name, value in report.user_properties if name == table]
        if rows:
            terminalreporter.section(table)
            terminalreporter.write_line(head)
            for row in rows:
                terminalreporter.write_line(row)
