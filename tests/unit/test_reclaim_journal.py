"""The journal of `reclaim --policy`: bounded, shared, and on a disk that is full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_reclaim import host, pytestmark
from test_reclaim_policy import Service, service

from orchestrator.reclaim.journal import Journal, Line
from orchestrator.records.step import StepOutcome

__all__ = ["host", "pytestmark", "service"]


def line(number: int = 0) -> Line:
    return Line(version=1, time=f"{number:03}", event="notice", host="node1", reason="x" * 100)


def test_a_device_that_is_always_full(service: Service) -> None:
    """/dev/full: each write ends with ENOSPC."""
    loop = service.loop(act=True, journal=Path("/dev/full"))
    Journal(Path("/dev/full"), service.complaints.append).check()
    loop.remember()
    loop.look()
    assert service.host.flushes == 1, "it acts all the same"
    service.clock.pass_by(600)
    service.host.own_kib = 1712
    loop.look()
    assert service.complaints == [
        "a line is missing in /dev/full: No space left on device",
        "2 lines are missing in /dev/full: No space left on device",
    ]
    assert len(service.told) == 2, "each line is printed all the same"


_ON_A_FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from orchestrator.reclaim.journal import Journal, Line

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)], check=True)
said = []
journal = Journal(disk / "journal", said.append)
journal.check()

def write(number):
    journal.write(Line(version=1, time=f"{number:03}", event="notice", host="h", reason="x" * 300))

for number in range(100):
    write(number)
full = (disk / "journal").read_text()
assert full.endswith("}\\n"), "what did not fit is no part of it"
kept = len(full.splitlines())
os.truncate(disk / "journal", 0)
write(100)
write(101)
print(json.dumps([kept, said, (disk / "journal").read_text().splitlines()]))
"""


def test_a_disk_that_is_full_and_has_room_again(tmp_path: Path) -> None:
    """A real one, of 16 KiB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        _ON_A_FULL_DISK,
        str(disk),
    ]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare" in ended.stderr:
        pytest.skip("no mount namespace may be made here")
    assert ended.returncode == 0, ended.stderr
    kept, said, lines = json.loads(ended.stdout)
    found = [json.loads(one) for one in lines]
    assert 20 < kept < 60
    lost = 100 - kept
    assert [(one["event"], one["time"]) for one in found] == [
        ("lost-lines", "100"),
        ("notice", "100"),
        ("notice", "101"),
    ]
    assert found[0]["lost_lines"] == lost
    assert said[0].endswith("journal: No space left on device")
    assert said[-1].endswith(f"is written again, and says that {lost} lines are missing")
    assert len(said) == lost + 1


def test_a_journal_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, pytest.fail, most_bytes=1000)
    for number in range(30):
        journal.write(line(number))
        assert path.stat().st_size <= 1000
    assert sorted(one.name for one in tmp_path.iterdir()) == ["journal", "journal.1"]
    assert (tmp_path / "journal.1").stat().st_size <= 1000
    assert json.loads(path.read_text().splitlines()[-1])["time"] == "029"


def test_attempts_are_read_over_both_files_and_what_is_no_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    attempt = Line(version=1, time="t", event="attempt", host="h", vm="a", outcome=StepOutcome.DONE)
    (tmp_path / "journal.1").write_bytes(attempt.json_line())
    later = attempt.model_copy(update={"vm": "b"})
    path.write_bytes(b"{\n[]\nnull\n\xff\n" + line().json_line() + later.json_line() + b'{"version": 1, "ev')
    assert [one.vm for one in Journal(path, pytest.fail).attempts()] == ["a", "b"]
    assert list(Journal(tmp_path / "none", pytest.fail).attempts()) == []


def test_two_that_write_one_journal_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("orchestrator.reclaim.journal._LOCK_SECONDS", 0.2)
    said: list[str] = []
    path = tmp_path / "journal"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        journal = Journal(path, said.append)
        journal.write(line(1))
    journal.write(line(2))
    assert said[0] == f"a line is missing in {path}: somebody else has locked it"
    assert [json.loads(one)["event"] for one in path.read_text().splitlines()] == ["lost-lines", "notice"]


def test_a_journal_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "no" / "journal", pytest.fail).check()
