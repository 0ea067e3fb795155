"""The lab on the command line: one at a time, and none is left half-way."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from orchestrator.cli import lab
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.host import lab as host_lab
from orchestrator.processes import boot_id

GONE = host_lab.RunningLab(
    pid=(1 << 22) - 1,
    started_ticks=1,
    boot_id=boot_id(),
    port=1,
    key="",
    known_hosts="",
    folder="",
    accel="tcg",
    facts={},
)


@pytest.mark.slow
def test_two_that_are_started_at_once_do_not_both_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = tmp_path / "keeper"
    keeper.write_text("#!/bin/sh\necho first\nexec sleep 20\n")
    keeper.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(keeper))
    monkeypatch.setattr(lab, "UP_SECONDS", 2.0)
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "nothing"))
    log, errors = tmp_path / "lab.log", []

    def start() -> None:
        try:
            lab._started([], log)
        except InfrastructureError as error:
            errors.append(error.brief)

    first = threading.Thread(target=start)
    first.start()
    while not log.exists() or not log.read_text():
        time.sleep(0.05)
    with pytest.raises(BadInputError, match="being started"):
        lab._started([], log)
    assert log.read_text() == "first\n", "the log is the first one's"
    first.join()
    assert errors == ["the lab was not up after 2 s"]
    with pytest.raises(InfrastructureError, match="not up"):
        lab._started([], log)  # the lock went with the first one


def test_one_that_has_just_ended_has_ended() -> None:
    host_lab.end_lab(GONE)


def test_a_folder_of_somebody_else_has_no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    assert host_lab.find_lab() is None
    (tmp_path / f"orchestrator-{os.geteuid() + 1}").mkdir()
    monkeypatch.setattr("os.getuid", lambda: os.geteuid() + 1)
    with pytest.raises(InfrastructureError, match="somebody else"):
        host_lab.find_lab()
