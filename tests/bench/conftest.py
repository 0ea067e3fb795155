"""Prints what the replay's benchmarks found, as one table behind pytest-benchmark's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from timed_pairs import Timed, table_lines

TIMED = pytest.StashKey[list[Timed]]()


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> list[Timed]:
    """What is to be printed in the end; append to it."""
    return request.config.stash.setdefault(TIMED, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """pytest's hook: after all tests."""
    found = config.stash.get(TIMED, [])
    if found:
        terminalreporter.section("replay beside libcachesim")
        for line in table_lines(found):
            terminalreporter.write_line(line)
