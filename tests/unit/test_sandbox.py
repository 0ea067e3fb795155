"""What doctor tries of the kernel's rights: as a run uses them, without leaving anything."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.cli import main
from orchestrator.doctor import Level, machine, sandbox, tools
from orchestrator.doctor.check import Subject

# Listens where it is told, becomes a daemon, and ends with its first client, as passt --one-off.
_PASST = """#!{python}
import os, socket, sys
place = sys.argv[sys.argv.index("--socket") + 1]
server = socket.socket(socket.AF_UNIX)
server.bind(place)
server.listen()
if os.fork():
    os._exit(0)
open({told!r}, "w").write(str(os.getpid()))
server.settimeout(20)
server.accept()[0].recv(1)
open({told!r}, "w").write("ended")
"""


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject(tmp_path / "cache", tmp_path / "guests", tmp_path / "results", None)


@pytest.fixture
def base() -> Iterator[Path]:
    """Sockets have addresses of at most 107 characters (unix(7)): pytest's folders can be longer."""
    with tempfile.TemporaryDirectory(prefix="o-") as folder:
        yield Path(folder)


@pytest.fixture
def programs(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder; runtime folders below another, with a path that is short enough for sockets."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(base))
    monkeypatch.setattr(tools, "_SBIN", ())
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_passt_is_started_and_ends(programs: Path, subject: Subject, tmp_path: Path, base: Path) -> None:
    told = tmp_path / "told"
    write(programs / "passt", _PASST.format(python=sys.executable, told=str(told)))
    finding = sandbox.passt(subject)
    assert (finding.level, finding.found) == (Level.OK, f"{programs / 'passt'} starts")
    deadline = time.monotonic() + 10
    while _still_runs(told.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [path for path in base.glob("orchestrator-*/*") if path.is_dir()] == []


def _still_runs(told: str) -> bool:
    """It says so when it ends, unless it is ended with its runtime folder."""
    return told != "ended" and (not told or psutil.pid_exists(int(told)))


def test_passt_without_the_right_to_a_user_namespace_is_red(programs: Path, subject: Subject) -> None:
    said = "Couldn't create user namespace: Operation not permitted"
    write(programs / "passt", f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    finding = sandbox.passt(subject)
    assert finding.level is Level.BAD
    assert finding.found == f"does not start: {said}"
    assert "user_namespaces(7)" in finding.fix


def test_no_pseudo_terminal_is_red(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox.terminals(subject).level is Level.OK

    def refuse() -> tuple[int, int]:
        raise OSError(errno.ENOENT, "out of pty devices")

    monkeypatch.setattr(os, "openpty", refuse)
    finding = sandbox.terminals(subject)
    assert (finding.level, finding.found) == (Level.BAD, "no pseudo-terminal: out of pty devices")


@pytest.mark.parametrize(
    ("uid", "words"), [(0, "--mount true"), (1000, "--user --map-root-user --mount true")]
)
def test_namespaces_are_tried_as_mmdebstrap_makes_them(
    *,
    programs: Path,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uid: int,
    words: str,
) -> None:
    assert sandbox.namespaces(subject).level is Level.UNKNOWN, "no unshare(1)"
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    write(programs / "unshare", f'#!/bin/sh\necho "$*" > {tmp_path}/asked\n')
    assert sandbox.namespaces(subject).level is Level.OK
    assert (tmp_path / "asked").read_text() == f"{words}\n"
    write(programs / "unshare", "#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    finding = sandbox.namespaces(subject)
    assert finding.level is Level.NOTE
    assert "unshare failed: Operation not permitted" in finding.found


def test_a_folder_that_cannot_be_written_is_red(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = machine.disk("--results FOLDER", lambda one: one.results)(subject)
    assert finding.level is Level.BAD
    assert "cannot be written" in finding.found
    assert "--results FOLDER" in finding.fix


def test_without_guests_doctor_still_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator import doctor
    from orchestrator.cli import doctor as verb
    from orchestrator.doctor import Check
    from orchestrator.errors import BadInputError

    def nowhere(*_: object) -> Path:
        raise BadInputError("there is no folder of guest definitions")

    monkeypatch.setattr(verb, "find_guests_dir", nowhere)
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [Check("a", Level.UNKNOWN, "not checked: b")])
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "not everything was checked: a" in said, "and no word of guests that run"
    assert "Guests run here" not in said
