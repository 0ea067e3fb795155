"""Fixtures of the tests on real guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import RUN_SECONDS, Orchestrator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here boots a guest."""
    for item in items:
        item.add_marker(pytest.mark.guest)
        item.add_marker(pytest.mark.timeout(RUN_SECONDS + 60))


@pytest.fixture
def orchestrator(tmp_path: Path) -> Iterator[Orchestrator]:
    """The command line; whatever the test did, nothing may be left behind."""
    driver = Orchestrator(tmp_path / "results")
    yield driver
    driver.close()
