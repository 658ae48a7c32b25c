"""Tells how many fault schedules were run, and how long they took."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Add a line to pytest's summary."""
    found: dict[str, float] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            found[name] = found.get(name, 0) + value
    count = found.get("fault schedules", 0)
    if count:
        seconds = found["fault schedule seconds"]
        terminalreporter.write_line(f"{count:.0f} fault schedules in {seconds:.0f} s, all passed")
