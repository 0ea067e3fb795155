"""Injected truth is found: one kind of memory at a time, and what the blocks that stay are blamed on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Orchestrator

# In one guest, one after the other: a boot for each would take an hour under emulation. Between two, memory
# is given back and asked back again, so that what one leaves behind is the next one's background.
HEAD = """\
version: 1
name: injected
guest: debian-13
kernel: "6.12"
machine: {vcpus: 2, memory: 1GiB, virtio_mem: {size: 1536MiB, block: 2MiB}}
arms: {only: {}}
sample_every: 2s
steps:
"""
ROUND = """\
  - plug: {{to: 1536MiB}}
  - start: {{workload: {workload}, set: {settings}, within: 5min}}
  - unplug: {{to: 0B, settle: 8s}}
  - snapshot: {{label: {label}}}
  - stop: {{workload: {workload}}}
"""
KINDS = {
    "page-table": ("sparse-map", "{span: 200GiB}"),
    "network": ("sockets", "{amount: 320MiB}"),
    "pipe": ("pipes", "{amount: 320MiB}"),
    "slab": ("dentries", "{amount: 192MiB}"),
    "stack": ("threads", "{amount: 160MiB}"),
    "pin": ("pin", "{amount: 384MiB}"),
    "mlock": ("mlock", "{amount: 1280MiB}"),
    "tmpfs": ("tmpfs", "{amount: 1280MiB}"),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orchestrator, Any]]:
    """The run, and `show --json` of it."""
    folder = tmp_path_factory.mktemp("injected")
    orchestrator = Orchestrator(folder / "results")
    scenario = folder / "injected.yaml"
    rounds = [
        ROUND.format(label=label, workload=workload, settings=settings)
        for label, (workload, settings) in KINDS.items()
    ]
    scenario.write_text(HEAD + "".join(rounds))
    finished = orchestrator.run(scenario, "--json")
    assert finished.code == 0, finished.err
    yield orchestrator, orchestrator.show()
    orchestrator.close()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_that_stay_are_given_what_was_injected(shown: tuple[Orchestrator, Any], kind: str) -> None:
    (row,) = (row for row in shown[1]["confusion"] if row["snapshot"] == kind)
    assert row["injected"] == [KINDS[kind][0]]
    assert row["blocks_stayed"] >= 50, row
    assert row["blocks_expected_share"] >= 0.95, row
    assert row["blocks_unexplained_share"] <= 0.05, row


def test_the_report_shows_injected_and_found(shown: tuple[Orchestrator, Any]) -> None:
    report = (Path(shown[1]["directory"]) / "report.html").read_text()
    assert 'id="confusion"' in report
    assert 'id="yield"' in report
    assert 'id="huge-pages"' in report
