"""A host elsewhere: its reader at the other end of a pipe, here of an ssh that stays on this machine."""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import BadInputError, GuestLostError, InfrastructureError
from orchestrator.guest.console import mirrored
from orchestrator.host import lab as host_lab
from orchestrator.host import remote as remote_module
from orchestrator.host import shell as shell_module
from orchestrator.host.machine import HostSetup
from orchestrator.host.remote import HostLostError
from orchestrator.host.remote_leftovers import end_remote, noted, remote_leftovers
from orchestrator.host.runtime import runtime_base
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget, own_target, user_target
from orchestrator.host_kinds import host_kind
from orchestrator.interrupts import stopped_by_signals
from orchestrator.launch.host_settings import apply_host_settings
from orchestrator.processes import boot_id, started_ticks


def test_files_are_read_the_same_from_near_and_far(shell: HostShell, tmp_path: Path) -> None:
    (tmp_path / "a1").write_bytes(b"x\xff\n")
    (tmp_path / "a2").write_text("2")
    wanted = {str(tmp_path / "a1"): "x\ufffd\n", str(tmp_path / "a2"): "2"}
    assert shell.texts(f"{tmp_path}/a*", f"{tmp_path}/missing") == wanted
    assert shell.text(str(tmp_path / "a2")) == "2"
    with pytest.raises(FileNotFoundError):
        shell.text(str(tmp_path / "missing"))
    assert shell.tail(str(tmp_path / "a1"), 1, 1) == b"\xff"
    shell.write(str(tmp_path / "a2"), "3")
    assert (tmp_path / "a2").read_text() == "3"
    with pytest.raises(OSError, match="No such file"):
        shell.write(str(tmp_path / "missing"), "3")
    assert not (tmp_path / "missing").exists()
    assert 1024 <= shell.free_port() < 65536


def test_counters_are_asked_for_near_and_far(shell: HostShell) -> None:
    """This process has no thread that is named as a vCPU; what one has is in test_host_perf.py."""
    assert shell.guest_counters(os.getpid(), [(0, 0)]) == {"vcpus": 0, "counts": []}
    with pytest.raises(OSError, match="No such"):
        shell.guest_counters(1 << 22, [(0, 0)])


def test_what_is_sent_is_python_3_8() -> None:
    """Hosts elsewhere have what they have: Ubuntu 20.04 that, RHEL 9 3.9."""
    for module in remote_module._SENT:
        text = inspect.getsource(module)
        ast.parse(text, feature_version=(3, 8))
        assert "strict=" not in text
        assert ".removesuffix(" not in text
        assert ".removeprefix(" not in text


def test_what_a_process_has(shell: HostShell) -> None:
    words = "where am I"
    name = Path("/proc/self/comm").read_text().strip()
    command = Path("/proc/self/cmdline").read_text().split("\0")
    assert shell.find_process(name, *command[:2]) is not None
    assert shell.find_process(name, words + "?") is None
    pid, where = os.getpid(), id(words) & ~7
    assert len(shell.memory(pid, [(where, 16), (where + 16, 8)])) == 24
    assert len(shell.page_bits(pid, where, 1)) == 1
    with pytest.raises(OSError, match=r"nothing at this address|Input/output"):
        shell.memory(pid, [(1 << 40, 8)])


def test_what_the_kernel_logged(shell: HostShell) -> None:
    """Against dmesg(1), an independent reader of the same log."""
    dmesg = subprocess.run(["dmesg", "--notime"], capture_output=True, text=True, check=False)
    printed = {line.strip() for line in dmesg.stdout.splitlines()}
    found = shell.kernel_log("", seconds=1e9)
    assert bool(found) == bool(printed), "both may read it, or neither"
    assert {line.strip() for line in found if "\\x" not in line} <= printed
    assert shell.kernel_log("", seconds=-1e9) == []
    assert shell.kernel_log("no such word in it", seconds=1e9) == []


def test_commands(shell: HostShell) -> None:
    assert shell.run(["printf", "%s", "a b; $HOME"], seconds=20) == "a b; $HOME"
    with pytest.raises(InfrastructureError, match="sh failed") as failed:
        shell.run(["sh", "-c", "echo why >&2; exit 3"], seconds=20)
    assert failed.value.details == "why"
    assert shell.run(["sh", "-c", "echo out; exit 3"], seconds=20, check=False) == "out\n"
    with pytest.raises(InfrastructureError, match="sleep failed") as failed:
        shell.run(["sleep", "30"], seconds=0.2)
    assert "did not end in" in failed.value.details


def test_a_host_that_vanishes_is_lost_and_stays_so(target: SshTarget) -> None:
    with remote_shell(target) as remote:
        pid = int(remote.run(["sh", "-c", "echo $PPID"], seconds=20))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(HostLostError, match="root@there does not answer"):
            remote.free_port()
        with pytest.raises(HostLostError, match="root@there is lost"):
            remote.free_port()


def test_a_host_that_falls_silent_is_lost(target: SshTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "CALL_SECONDS", -4.8)  # long before the other end says that time is up
    with remote_shell(target) as remote:
        began = time.monotonic()
        with pytest.raises(HostLostError) as lost:
            remote.run(["sleep", "5"], seconds=5)
        assert time.monotonic() - began < 4
    assert "did not answer in" in lost.value.details


def test_a_host_that_ssh_cannot_reach_is_told(target: SshTarget) -> None:
    target.script.write_text("#!/bin/sh\necho Host key verification failed. >&2\nexit 255\n")
    with pytest.raises(InfrastructureError, match="cannot reach root@there") as failed, remote_shell(target):
        pass
    assert failed.value.details.startswith("Host key verification failed.")
    assert failed.value.hint.endswith("python3 --version")


def test_a_host_that_says_something_else_is_lost(target: SshTarget) -> None:
    target.script.write_text("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\nsleep 1\n")
    with pytest.raises(InfrastructureError, match="cannot reach") as failed, remote_shell(target):
        pass
    assert "not what the reader says" in failed.value.details


@pytest.mark.parametrize("answer", ["Welcome!", "7", '{"bytes": 99999999999}', '{"errno": "x", "error": ""}'])
def test_a_host_that_greets_or_makes_up_answers_is_lost(target: SshTarget, answer: str) -> None:
    target.script.write_text(f"#!/bin/sh\necho $$ >{target.script}.pid\necho '{answer}'\nexec sleep 60\n")
    with pytest.raises(InfrastructureError, match="cannot reach") as failed, remote_shell(target):
        pass
    assert failed.value.details == f"what it answers is not what the reader says: {answer}"
    pid = int(Path(f"{target.script}.pid").read_text())
    assert not Path(f"/proc/{pid}").exists(), "nothing is left of ssh"


@contextmanager
def stopped_soon() -> Iterator[None]:
    """A signal comes within the block, and ends it."""
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(lambda: None, lambda: None):
        yield


@pytest.mark.slow
def test_a_signal_within_an_answer_leaves_a_host_that_can_be_cleaned_up(
    target: SshTarget, tmp_path: Path
) -> None:
    with remote_shell(target) as remote, stopped_soon(), remote.folder(tmp_path / "guest") as folder:
        remote.run(["sleep", "1.5"], seconds=20)
    assert not folder.exists()


@pytest.mark.slow
def test_a_signal_does_not_wait_long_for_a_host_that_is_silent(
    target: SshTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_LAST_SECONDS", 0.1)
    began = time.monotonic()
    with remote_shell(target) as remote, stopped_soon():
        remote.run(["sleep", "15"], seconds=20)
    assert time.monotonic() - began < 10


def test_last_words_are_not_waited_for(target: SshTarget) -> None:
    # As with ControlPersist: what goes on in the background holds standard error.
    target.script.write_text(f"#!/bin/sh\nsleep 20 >/dev/null </dev/null &\necho $! >{target.script}.pid\n")
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match="cannot reach") as failed, remote_shell(target):
        pass
    os.kill(int(Path(f"{target.script}.pid").read_text()), signal.SIGKILL)
    assert time.monotonic() - began < 10
    assert failed.value.details.startswith("the connection ended")


def test_a_folder_there_goes_in_the_end_or_stays(shell: HostShell, tmp_path: Path) -> None:
    here = tmp_path / "guest"
    with shell.folder(here) as folder:
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o777 == 0o711
        assert here.is_dir()
    assert folder.exists() is shell.is_here, "what is here goes with the runtime folder"
    with shell.folder(tmp_path / "kept", keep=True) as folder:
        pass
    assert folder.is_dir()
    if not shell.is_here:
        folder.rmdir()
        with pytest.raises(KeyError), shell.folder(tmp_path / "failed", keep=True) as folder:
            raise KeyError
        assert not folder.exists()


@pytest.mark.skipif(shutil.which("zstd") is None, reason="bootstrap installs it")
def test_a_file_is_copied_once(target: SshTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "REMOTE_CACHE", str(tmp_path / "cache"))
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(8 << 20)
        stream.write(b"end")
    assert HostShell().place(disk, "image/disk") == disk
    with remote_shell(target) as remote:
        there = remote.place(disk, "image/disk")
        assert there == tmp_path / "cache" / "image" / "disk"
        assert there.read_bytes() == disk.read_bytes()
        assert there.stat().st_blocks * 512 < 1 << 20, "holes stay holes"
        there.write_text("as it is")
        assert remote.place(disk, "image/disk").read_text() == "as it is"
        assert [path.name for path in there.parent.iterdir()] == ["disk"]


def test_a_console_elsewhere_is_brought_here(target: SshTarget, tmp_path: Path) -> None:
    there, here = tmp_path / "there.log", tmp_path / "here.log"
    there.write_text("one\n")
    here.write_text("of the guest before\n")
    with remote_shell(target) as remote:
        console = mirrored(remote, there, here)
        assert console.text() == "one\n"
        with there.open("a") as stream:
            stream.write("Kernel panic - not syncing: x\n")
        assert console.panic() == "Kernel panic - not syncing: x"
    there.write_text("gone")
    assert console.tail() == "one\nKernel panic - not syncing: x", "what came before is kept"


def test_huge_pages_are_set_and_put_back(tmp_path: Path) -> None:
    written: list[str] = []

    def call(name: str, *words: object, **_: object) -> object:
        if name == "texts":
            return {"/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"}
        written.append(str(words[1]))
        return None

    with apply_host_settings(HostShell(call), HostSetup(thp="never"), tmp_path):
        assert written == ["never"]
    assert written == ["never", "madvise"]
    with apply_host_settings(HostShell(call), HostSetup(), tmp_path):
        pass
    assert written == ["never", "madvise"]


def test_huge_pages_are_put_back_if_a_signal_comes_as_they_are_set(tmp_path: Path) -> None:
    written: list[str] = []

    def call(name: str, *words: object, **_: object) -> object:
        if name == "texts":
            return {"/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"}
        written.append(str(words[1]))
        if len(written) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return None

    with (
        pytest.raises(KeyboardInterrupt),
        stopped_by_signals(lambda: None, lambda: None),
        apply_host_settings(HostShell(call), HostSetup(thp="never"), tmp_path),
    ):
        pass
    assert written == ["never", "madvise"]


def test_a_host_that_lets_nobody_set_it_says_so(tmp_path: Path) -> None:
    def call(name: str, *_: object, **__: object) -> object:
        if name == "texts":
            return {"/sys/kernel/mm/transparent_hugepage/enabled": "[always] never\n"}
        raise PermissionError(13, "Permission denied")

    with (
        pytest.raises(InfrastructureError, match="cannot set transparent huge pages of this machine"),
        apply_host_settings(HostShell(call), HostSetup(thp="never"), tmp_path),
    ):
        pass


def test_only_known_hosts_are_believed_and_nothing_is_asked(tmp_path: Path) -> None:
    users = user_target("qemu+ssh://root@kvm7:2222/system", tmp_path)
    text = users.script.read_text()
    assert "StrictHostKeyChecking=yes" in text
    assert "BatchMode=yes" in text
    assert "/dev/null" not in text, "their configuration says how to get there"
    assert users.argv("a", "b c")[1:] == ["-T", "-p", "2222", "root@kvm7", "a 'b c'"]
    assert users.argv(forward="127.0.0.1:5")[1:] == ["-T", "-p", "2222", "-W", "127.0.0.1:5", "root@kvm7"]
    assert users.libvirt_uri() == f"qemu+ssh://root@kvm7:2222/system?command={tmp_path}/ssh&no_tty=1"
    ours = own_target(5, tmp_path / "key", tmp_path / "known_hosts", tmp_path)
    text = ours.script.read_text()
    assert "-F /dev/null" in text
    assert f"UserKnownHostsFile={tmp_path}/known_hosts" in text
    assert "IdentityAgent=none" in text


@pytest.mark.parametrize(
    "uri",
    ["qemu+ssh:///system", "qemu+ssh://u:p@h/system", "qemu+ssh://h/system?a=b", "qemu+ssh://h:x/system"],
)
def test_other_uris_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="qemu"):
        user_target(uri, tmp_path)


def test_a_guest_elsewhere_is_noted_while_it_runs_and_can_be_ended(
    target: SshTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("virsh", "rm"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/said\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    folder = Path("/var/tmp/orchestrator-guest-abcdefgh")
    with noted(tmp_path, target, "r1-a-01", folder):
        (left,) = remote_leftovers(tmp_path)
    assert remote_leftovers(tmp_path) == []
    end_remote(left)
    assert (tmp_path / "said").read_text().splitlines() == [
        "virsh -q -c qemu:///system destroy r1-a-01",
        f"rm -rf --one-file-system {folder}",
    ]
    with pytest.raises(InfrastructureError, match="belongs to another program"):
        end_remote(replace(left, folder="/var/tmp/orchestrator-guest-x/../../home"))


def test_a_guest_behind_a_broken_connection_is_ended_by_another_or_told(
    target: SshTarget, tmp_path: Path
) -> None:
    folder = Path("/var/tmp/orchestrator-guest-abcdefgh")
    target.script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n')
    with pytest.raises(GuestLostError) as lost, noted(tmp_path, target, "r1-a-01", folder):
        raise GuestLostError("the guest stopped running", details="silence")
    assert "destroy r1-a-01" in (tmp_path / "said").read_text()
    assert lost.value.details == "silence"
    target.script.write_text("#!/bin/sh\nexit 255\n")
    with pytest.raises(GuestLostError) as lost, noted(tmp_path, target, "r1-a-01", folder):
        raise GuestLostError("the guest stopped running", details="silence")
    assert lost.value.details == (
        f"silence\nroot@there may still have the guest r1-a-01; there: virsh destroy r1-a-01; rm -rf {folder}"
    )


def test_the_lab_is_the_one_whose_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    base = runtime_base()
    base.mkdir()
    assert host_lab.find_lab() is None
    with pytest.raises(BadInputError, match="no lab is up") as missing:
        host_kind("lab").address(tmp_path)
    assert missing.value.hint == "orchestrator lab up"
    facts: dict[str, object] = {
        "pid": os.getpid(),
        "started_ticks": started_ticks(os.getpid()),
        "boot_id": boot_id(),
        "port": 5,
        "key": "/k",
        "known_hosts": "/h",
        "folder": str(tmp_path),
        "accel": "tcg",
        "facts": {},
    }
    (base / "0123abcd").mkdir()
    (base / "0123abcd" / "lab.json").write_text(json.dumps(facts))
    (base / "4567abcd").mkdir()
    (base / "4567abcd" / "lab.json").write_text(json.dumps({**facts, "started_ticks": 1, "port": 6}))
    lab = host_lab.find_lab()
    assert lab is not None
    assert lab.port == 5
    assert "root@127.0.0.1:5" in lab.uri
    found = host_kind("lab").address(tmp_path)
    assert isinstance(found, SshTarget)
    assert found.port == 5
    assert host_kind("local").address(tmp_path) is None
    assert host_kind("qemu:///system").address(tmp_path) == "qemu:///system"
