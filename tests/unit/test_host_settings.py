"""A setting of a host that is changed for a while is put back, also by `clean` after a kill -9 in between."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from test_runtime import typed

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import GuestLostError, InfrastructureError
from orchestrator.host import reader, settings
from orchestrator.host.runtime import runtime_base, runtime_folder
from orchestrator.host.settings import (
    NX_HUGE_PAGES,
    changed_setting,
    chosen,
    left_settings,
    noted_setting,
    put_back,
)
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget

# A flush of argv[1], in a runtime folder, that stops between its two writes; by ssh argv[2], if given.
_FLUSH = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from fakes import FakeDomain
from orchestrator.host import reader, settings
from orchestrator.host.runtime import runtime_folder
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget
from orchestrator.levers import LEVERS, LeverTarget

settings.PATHS[settings.NX_HUGE_PAGES] = sys.argv[1]
write = reader.write

def slowly(path, text):
    write(path, text)
    print("written", flush=True)
    time.sleep(60)

reader.write = slowly
ssh = SshTarget(Path(sys.argv[2]), "there", 22, "root") if sys.argv[2:] else None
with runtime_folder(Path("r1")) as folder, remote_shell(ssh) if ssh else nullcontext(HostShell()) as shell:
    print(folder, flush=True)
    domain = FakeDomain(shell=shell)
    LEVERS["flush"]().pull(LeverTarget(domain, domain.qemu, (), folder))
"""


@pytest.fixture
def parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nx_huge_pages, and a base for runtime folders."""
    path = tmp_path / "nx_huge_pages"
    path.write_text("N\n")
    monkeypatch.setitem(settings.PATHS, NX_HUGE_PAGES, str(path))
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))
    return path


@pytest.fixture
def runtime(parameter: Path) -> Iterator[Path]:
    with runtime_folder(Path("r1")) as folder:
        yield folder


def killed_within_a_flush(parameter: Path, *ssh: str) -> Path:
    """The runtime folder of a process that was killed once it had changed the setting."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", _FLUSH, str(parameter), *ssh],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as child:
        assert child.stdout
        folder = Path(child.stdout.readline().strip())
        try:
            changed = wait_for(
                lambda: chosen(parameter.read_text()) == "force" or None, Deadline(60), every=0.05
            )
        finally:
            child.send_signal(signal.SIGKILL)
        assert changed, "it was never changed"
    return folder


def as_the_kernel_reads_it(parameter: Path) -> None:
    assert parameter.read_text() == "force"
    parameter.write_text("Y\n")


def test_clean_puts_back_what_a_kill_left_changed(
    parameter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = killed_within_a_flush(parameter)
    as_the_kernel_reads_it(parameter)
    (note,) = left_settings(folder)
    assert (note.setting, note.former, note.host) == (NX_HUGE_PAGES, "N", "this machine")
    code, text, _ = typed(capsys, "clean", "--dry-run", "--json")
    told = {"host": "this machine", "setting": NX_HUGE_PAGES, "former": "N"}
    assert (code, json.loads(text)["settings"]) == (0, [told])
    assert chosen(parameter.read_text()) == "Y", "a dry run changes nothing"
    code, text, _ = typed(capsys, "clean")
    assert code == 0
    assert "put back nx_huge_pages of this machine to N" in " ".join(text.split())
    assert chosen(parameter.read_text()) == "N"
    assert not folder.exists()


def test_what_somebody_else_has_set_since_stays(parameter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_within_a_flush(parameter)
    parameter.write_text("never\n")
    assert typed(capsys, "clean")[0] == 0
    assert parameter.read_text() == "never\n"


def test_clean_tells_what_it_cannot_put_back(
    parameter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_within_a_flush(parameter)
    as_the_kernel_reads_it(parameter)

    def deny(path: str, text: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setitem(reader.CALLS, "write", deny)
    code, _, told = typed(capsys, "clean")
    assert code == 3
    assert "nx_huge_pages of this machine could not be put back to N" in told
    assert f"echo N > {parameter}" in told.replace("\n", "")
    assert not folder.exists(), "it is told, once"


def test_after_a_reboot_there_is_nothing_to_put_back(runtime: Path, parameter: Path) -> None:
    with noted_setting(HostShell(), runtime, NX_HUGE_PAGES, former="N", changed_to="Y"):
        (note,) = left_settings(runtime)
        parameter.write_text("Y\n")
        assert not put_back(replace(note, boot_id="another"))
        assert parameter.read_text() == "Y\n"
        assert put_back(note)
    assert chosen(parameter.read_text()) == "N"
    assert left_settings(runtime) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"setting": "nx_huge_pages"}'])
def test_a_note_that_is_none_is_no_fault(runtime: Path, text: str) -> None:
    (runtime / "setting-x-01.json").write_text(text)
    assert left_settings(runtime) == []


def test_a_note_of_another_file_is_never_followed(runtime: Path) -> None:
    note = {"setting": "../../etc/passwd", "former": "x", "changed_to": "y", "boot_id": ""}
    (runtime / "setting-x-01.json").write_text(json.dumps(note))
    assert left_settings(runtime) == []


@pytest.mark.slow
def test_a_reader_elsewhere_ends_the_flush_when_who_asked_is_killed(
    parameter: Path, target: SshTarget, tmp_path: Path
) -> None:
    """Its two writes are one call: what is read on our side plays no part in it."""
    pause = tmp_path / "python3"
    # The reader that was sent waits between its writes.
    pause.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'import builtins, sys, os, time\n"
        "write = os.write\n"
        "def slowly(file, data):\n"
        "    done = write(file, data)\n"
        '    if data == b"force": time.sleep(1.5)\n'
        "    return done\n"
        "os.write = slowly\n"
        'exec(compile(sys.argv[3], "loader", "exec"))\' "$@"\n'
    )
    pause.chmod(0o755)
    target.script.write_text(target.script.read_text().replace("exec sh", f"PATH={tmp_path}:$PATH exec sh"))
    folder = killed_within_a_flush(parameter, str(target.script))
    back = wait_for(lambda: chosen(parameter.read_text()) == "N" or None, Deadline(20), every=0.05)
    assert back, "the reader did not go on"
    (note,) = left_settings(folder)
    assert note.host == "root@there"
    assert not put_back(note), "there is nothing to do"


def test_clean_reaches_a_host_elsewhere_whose_reader_was_killed_as_well(
    parameter: Path, target: SshTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = HostShell()
    shell.target = target
    base = runtime_base() / "0123abcd"
    base.mkdir(parents=True)
    owner = {"pid": 1, "started_ticks": 1, "boot_id": "another", "run_dir": "r1"}
    (base / "owner.json").write_text(json.dumps(owner))
    kept = settings.SettingNote.of(shell, NX_HUGE_PAGES, "N", "Y")
    (base / "setting-nx_huge_pages-01.json").write_text(json.dumps(asdict(kept)))
    parameter.write_text("Y\n")
    code, text, _ = typed(capsys, "clean")
    assert code == 0
    assert "put back nx_huge_pages of root@there to N" in " ".join(text.split())
    assert chosen(parameter.read_text()) == "N"


def test_behind_a_broken_connection_it_is_put_back_by_another_or_told(
    runtime: Path, parameter: Path, target: SshTarget
) -> None:
    def break_off(ssh: SshTarget) -> None:
        with (
            remote_shell(ssh) as remote,
            noted_setting(remote, runtime, NX_HUGE_PAGES, former="N", changed_to="Y"),
        ):
            parameter.write_text("Y\n")
            os.kill(int(remote.run(["sh", "-c", "echo $PPID"], seconds=20)), signal.SIGKILL)
            raise GuestLostError("the host is lost", details="silence")

    with pytest.raises(GuestLostError) as lost:
        break_off(target)
    assert lost.value.details == "silence"
    assert chosen(parameter.read_text()) == "N"
    once = target.script.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\nmkdir {runtime}/once || exit 255\n")
    target.script.write_text(once)
    with pytest.raises(GuestLostError) as lost:
        break_off(target)
    assert f"there, as root: echo N > {parameter}" in lost.value.details
    assert left_settings(runtime) == []


def test_a_value_that_lasts_for_a_block(runtime: Path, parameter: Path) -> None:
    with changed_setting(HostShell(), runtime, NX_HUGE_PAGES, "Y"):
        assert parameter.read_text() == "Y"
        assert len(left_settings(runtime)) == 1
    assert chosen(parameter.read_text()) == "N"
    assert left_settings(runtime) == []


def test_two_do_not_change_it_at_once(shell: HostShell, parameter: Path) -> None:
    shell.set_and_restore(str(parameter), "force", "N", seconds=5)
    assert parameter.read_text() == "N"
    with pytest.raises(OSError, match="something else by now"):
        shell.set_and_restore(str(parameter), "force", "Y", seconds=5)
    with parameter.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            shell.set_and_restore(str(parameter), "force", "N", seconds=5)
    with pytest.raises(FileNotFoundError):
        shell.set_and_restore(f"{parameter}.missing", "force", "N", seconds=5)


def test_failing_to_put_it_back_is_an_error(
    runtime: Path, parameter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: str, text: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    def changes_and_cannot_put_back() -> None:
        with noted_setting(HostShell(), runtime, NX_HUGE_PAGES, former="N", changed_to="Y"):
            parameter.write_text("Y\n")
            monkeypatch.setitem(reader.CALLS, "write", deny)

    with pytest.raises(InfrastructureError, match="could not be put back to N"):
        changes_and_cannot_put_back()
