"""Runtime folders: gone after a run, and after a kill -9 everything of it is found, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from orchestrator.cli import main
from orchestrator.cli.signals import stop_at_signals
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.host import runtime
from orchestrator.host.libvirt_host import _embedded_root, _let_passt_in
from orchestrator.host.runtime import Process, end, leftovers, processes_of, remove, runtime_folder
from orchestrator.processes import started_ticks

# Makes a runtime folder below argv[1], starts programs with it on their command lines, and waits.
_OWNER = """
import subprocess, sys, time
from pathlib import Path
from orchestrator.host import runtime
from orchestrator.host.libvirt_host import _let_passt_in
runtime.runtime_base = lambda: Path(sys.argv[1])
LOOP = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done"  # ends some day, if a test fails
with runtime.runtime_folder(Path("results/r1")) as folder:
    pids = [
        subprocess.Popen([program, "-c", LOOP, f"{folder}/v/socket"]).pid
        for program in sys.argv[2:]
    ]
    print(folder, *pids, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    base = runtime.runtime_base()
    base.mkdir()
    monkeypatch.setattr(runtime, "END_SECONDS", 2.0)
    return base


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """A program with a name of one's choice: a shell, since sleep would not take a path as argument."""

    def make(name: str) -> Path:
        path = tmp_path / name
        shutil.copy("/bin/sh", path)
        return path

    return make


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that does not outlive the test."""
    with ExitStack() as stack:

        def start(*argv: object) -> subprocess.Popen[str]:
            child = subprocess.Popen([str(word) for word in argv], stdout=subprocess.PIPE, text=True)
            assert child.stdout
            stack.callback(child.stdout.close)
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        yield start


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def killed_owner(
    base: Path, spawn: Callable[..., subprocess.Popen[str]], *programs: Path
) -> tuple[Path, list[int]]:
    owner = spawn(sys.executable, "-c", _OWNER, base, *programs)
    assert owner.stdout
    folder, *pids = owner.stdout.readline().split()
    assert leftovers() == [], "its owner is alive"
    owner.kill()
    owner.wait()
    return Path(folder), [int(pid) for pid in pids]


def test_a_folder_comes_says_whose_it_is_and_goes(base: Path) -> None:
    stack = ExitStack()
    folder = stack.enter_context(runtime_folder(Path("results/r1")))
    assert folder.parent == base
    owner = json.loads((folder / "owner.json").read_text())
    assert (owner["pid"], owner["run_dir"]) == (os.getpid(), "results/r1")
    (folder / "v" / "run").mkdir(parents=True)
    with pytest.raises(KeyError), stack:
        raise KeyError
    assert not base.exists()


def test_the_path_leaves_room_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_RUNTIME", raising=False)
    longest = runtime.runtime_base() / "01234567" / "v/run/qemu/passt/99-t0123456789012345678901-net0.socket"
    assert len(str(longest)) <= 107


def test_after_a_kill_its_processes_are_found_and_ended_and_no_others(
    base: Path,
    program: Callable[[str], Path],
    spawn: Callable[..., subprocess.Popen[str]],
) -> None:
    ours, innocent = program("passt"), program("editor")
    folder, (our_pid, innocent_pid) = killed_owner(base, spawn, ours, innocent)
    try:
        with runtime_folder(Path("results/other")) as live:
            (found,) = leftovers()
            assert live.exists()
        assert found.folder == folder
        assert found.owner is not None
        assert found.owner.run_dir == "results/r1"
        assert [(process.pid, process.name) for process in found.processes] == [(our_pid, "passt")]
        remove(folder)
        assert gone(our_pid)
        assert not gone(innocent_pid)
        assert not folder.exists()
        assert leftovers() == []
    finally:
        for pid in (our_pid, innocent_pid):
            if not gone(pid):
                os.kill(pid, 9)


def test_a_process_with_another_folder_is_not_ours(
    base: Path, program: Callable[[str], Path], spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    child = spawn(program("qemu-system-x"), "-c", "while :; do sleep 0.1; done", f"{base}/abcd1234/v")
    # Under load it may not have reached its execve(2) yet; a fork of it may be found beside it.
    assert wait_for(
        lambda: child.pid in {process.pid for process in processes_of(base / "abcd1234")} or None,
        Deadline(10),
        every=0.05,
    )
    assert list(processes_of(base / "abcd")) == [], "a beginning of its name is another folder"


def test_a_pid_that_was_given_to_another_is_left_alone(
    program: Callable[[str], Path], spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    child = spawn(program("passt"), "-c", "while :; do sleep 0.1; done")
    began = started_ticks(child.pid)
    assert began is not None
    end((Process(child.pid, began - 1, "passt"),))
    assert child.poll() is None


def test_what_ignores_sigterm_is_killed(
    base: Path,
    program: Callable[[str], Path],
    spawn: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "END_SECONDS", 0.3)
    child = spawn(
        program("passt"), "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", f"{base}/a/x"
    )
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    end(processes_of(base / "a"))
    assert wait_for(lambda: gone(child.pid) or None, Deadline(5), every=0.01)


@pytest.mark.slow
def test_a_passt_that_comes_again_while_qemu_runs_does_not_stay(
    base: Path, program: Callable[[str], Path], spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    passt = program("passt")
    folder = base / "0123abcd"
    folder.mkdir()
    loop = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done"
    starts_passt_again = f"""
        trap : TERM; echo ready
        n=0; while [ $n -lt 20 ]; do n=$((n+1)); {passt} -c '{loop}' {folder}/v/socket; done
    """
    qemu = spawn(program("qemu-system-x"), "-c", starts_passt_again, f"{folder}/v/monitor")
    assert qemu.stdout
    assert qemu.stdout.readline() == "ready\n"
    assert wait_for(lambda: len(list(processes_of(folder))) == 2 or None, Deadline(5), every=0.01)
    remove(folder)
    time.sleep(0.3)
    assert list(processes_of(folder)) == []


@pytest.mark.parametrize(
    ("owner", "listed"),
    [
        ({}, False),
        ({"boot_id": "another boot"}, True),
        ({"started_ticks": -1}, True),
        ({"pid": (1 << 22) + 1}, True),
    ],
)
def test_whose_owner_is_gone(base: Path, owner: dict[str, object], listed: bool) -> None:
    with runtime_folder(Path("results/r1")) as folder:
        told = json.loads((folder / "owner.json").read_text())
        if "started_ticks" in owner:
            owner = {"started_ticks": told["started_ticks"] - 1}  # a pid that was given to another
        (folder / "owner.json").write_text(json.dumps({**told, **owner}))
        assert [left.folder for left in leftovers()] == ([folder] if listed else [])


def test_a_clock_that_is_set_changes_no_owner(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime_folder(Path("results/r1")):
        # psutil computes a start from the boot time, which is the clock less the time since the boot.
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 3600)
        assert leftovers() == []


@pytest.mark.parametrize("text", [None, "", "[]", '{"pid": 1}'])
def test_a_folder_that_does_not_say_whose_it_is_is_left_over_once_it_is_old(
    base: Path, text: str | None
) -> None:
    folder = base / "00000000"
    folder.mkdir()
    if text is not None:
        (folder / "owner.json").write_text(text)
    assert leftovers() == [], "it may be in the making"
    os.utime(folder, (time.time() - 60,) * 2)
    (found,) = leftovers()
    assert (found.folder, found.owner) == (folder, None)


def test_a_folder_that_goes_while_we_look_is_no_fault(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "00000000").mkdir()

    def read_and_lose(folder: Path) -> None:
        folder.rmdir()

    monkeypatch.setattr(runtime, "_read_owner", read_and_lose)
    assert leftovers() == []


def test_a_base_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    runtime.runtime_base().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InfrastructureError, match="belongs to somebody else"), runtime_folder(Path("r")):
        pytest.fail("it was taken")
    with pytest.raises(InfrastructureError, match="belongs to somebody else"):
        leftovers()


def test_a_chosen_folder_keeps_its_rights_and_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tmp_path / "chosen"
    (chosen / "0123abcd").mkdir(parents=True)
    (chosen / "notes").write_text("dear")
    os.utime(chosen / "0123abcd", (time.time() - 60,) * 2)
    chosen.chmod(0o770)
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(chosen))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    assert leftovers() == []
    assert typed(capsys, "clean")[0] == 0
    assert sorted(path.name for path in chosen.iterdir()) == ["0123abcd", "notes"], "looking makes nothing"
    with runtime_folder(Path("r")) as folder:
        assert folder.parent == chosen / f"orchestrator-{os.getuid()}"
        assert folder.parent.stat().st_mode & 0o777 == 0o711
        folder.parent.chmod(0o700)
        assert leftovers() == []
        assert folder.parent.stat().st_mode & 0o777 == 0o700, "looking changes nothing"
    assert chosen.stat().st_mode & 0o777 == 0o770
    assert (chosen / "notes").read_text() == "dear"


def test_what_is_not_of_our_making_is_ignored(base: Path) -> None:
    (base / "notes").write_text("x")
    (base / "89abcdef").write_text("a file")
    (base / "backup").mkdir()
    (base / "00000000").mkdir()
    (base / "00000000" / "thesis.tex").write_text("x")
    (base / "00000001").symlink_to(base / "backup")
    for path in base.iterdir():
        os.utime(path, (time.time() - 60,) * 2)
    assert leftovers() == []


def dead(base: Path, name: str) -> Path:
    """A folder whose owner is gone."""
    folder = base / name
    (folder / "v").mkdir(parents=True)
    owner = {"pid": (1 << 22) + 1, "started_ticks": 1, "boot_id": "another", "run_dir": f"results/{name}"}
    (folder / "owner.json").write_text(json.dumps(owner))
    return folder


def typed(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_one_that_stays_does_not_keep_the_others(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    stays, goes = dead(base, "00000000"), dead(base, "00000001")
    rmtree = shutil.rmtree

    def refuse(path: Path, *, ignore_errors: bool) -> None:
        if not path.is_relative_to(stays):
            rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr("shutil.rmtree", refuse)
    code, text, err = typed(capsys, "clean")
    assert (code, text) == (3, f"removed {goes} of results/00000001\n")
    assert f"{stays} could not be removed" in err
    assert not goes.exists()
    assert (stays / "owner.json").exists(), "clean has to find it again"


def test_a_process_that_is_anothers_does_not_keep_the_rest(
    program: Callable[[str], Path],
    spawn: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = spawn(program("passt"), "-c", "while :; do sleep 0.1; done")
    began = started_ticks(child.pid)
    assert began is not None

    def deny(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", deny)
    end((Process(child.pid, began, "passt"),))
    assert child.poll() is None


def test_a_signal_during_the_clean_up_waits_for_its_end(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed = []

    def interrupted(folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        remove(folder)
        removed.append(folder)

    monkeypatch.setattr(runtime, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt), stop_at_signals(), runtime_folder(Path("r")) as folder:
        pass
    assert removed == [folder]
    assert not folder.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_are_those_that_passt_needs_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """passt, started as root, drops to `nobody`: it passes through to its own folder, no more."""
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(runtime, "must_be_ours", lambda _: None)
    before = os.umask(umask)
    try:
        with runtime_folder(Path("results/r1")) as folder:
            os.umask(0o077)  # for what follows, which libvirt makes
            passt = folder / "v" / "run" / "qemu" / "passt"
            passt.mkdir(parents=True)
            _let_passt_in(f"qemu:///embed?root={folder / 'v'}")
            ways = [passt, *list(passt.parents)[:5]]
            modes = [oct(path.stat().st_mode & 0o7777) for path in ways]
    finally:
        os.umask(before)
    assert modes == ["0o1777", *["0o711"] * 5]


@pytest.mark.parametrize(("given", "kept"), [(0o000, 0o022), (0o002, 0o022), (0o022, 0o022), (0o077, 0o077)])
def test_nobody_else_writes_to_what_we_make(given: int, kept: int) -> None:
    before = os.umask(given)
    try:
        with pytest.raises(SystemExit):
            main(["--version"])
        found = os.umask(given)
    finally:
        os.umask(before)
    assert found == kept


def test_a_folder_whose_sockets_passt_would_cut_off_is_refused() -> None:
    """Guests had no network from the tenth on: one more digit, and the path was too long."""
    room = 98 - len("/run/qemu/passt/99999-state-0123456789abcd-net0.socket")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        fits = Path(place) / ("x" * (room - len(place) - 1))
        assert len(str(fits)) == room
        assert _embedded_root(fits, Path(place) / "cache") == fits
        with pytest.raises(BadInputError, match="1 characters too many") as refused:
            _embedded_root(fits.with_name(fits.name + "x"), Path(place) / "cache")
    assert "ORCHESTRATOR_RUNTIME" in refused.value.hint


def test_passt_does_cut_it_off() -> None:
    """Else the limit may go. That much of its source: 98 characters are taken, and the next are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)  # started as root, passt is `nobody` there
        for characters in (98, 99):
            socket = Path(place) / ("x" * (characters - len(place) - 1))
            passt = subprocess.Popen(
                ["passt", "-f", "--one-off", "--socket", socket], stderr=subprocess.DEVNULL
            )
            try:
                made = wait_for(lambda: next(Path(place).iterdir(), None), Deadline(10), every=0.05)
                assert made
                assert len(str(made)) == 98
            finally:
                passt.kill()
                passt.wait()
            made.unlink()
