"""KVM is believed only when a kernel has printed under it. A script on PATH plays QEMU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.deadline import Deadline, wait_for
from orchestrator.host import accel
from orchestrator.host.accel import choose, probe_kvm, probe_kvm_of, second_level
from orchestrator.host.shell import HostShell

# Finds the console that the caller wants written: `-serial file:PATH`.
_CONSOLE = """\
#!/bin/sh
for word; do case $word in file:*) console=${word#file:} ;; esac; done
"""
_BANNER = "echo '[    0.000000] Linux version 6.12.57 (debian)' >>\"$console\"\n"
_MEMORY = "echo '[    0.021873] Memory: 220140K/261624K available' >>\"$console\"\n"
_STAY = "while :; do sleep 0.1; done\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a /dev/kvm, and a folder at the front of PATH for its programs."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accel, "_MODULES", tmp_path / "modules")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path


def qemu(machine: Path, script: str) -> None:
    path = machine / "bin" / "qemu-system-x86_64"
    path.write_text(_CONSOLE + script)
    path.chmod(0o755)


def parameter(machine: Path, module: str, name: str, value: str) -> None:
    folder = machine / "modules" / module / "parameters"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value + "\n")


def test_a_kernel_that_prints_is_believed(machine: Path) -> None:
    qemu(machine, _BANNER + "sleep 0.1\n" + _MEMORY + _STAY)
    parameter(machine, "kvm_amd", "npt", "1")
    chosen = choose("auto", machine / "vmlinuz")
    assert (chosen.name, chosen.second_level) == ("kvm", "NPT")


def test_a_kernel_that_prints_and_ends_at_once_is_believed(machine: Path) -> None:
    qemu(machine, _BANNER + _MEMORY)
    assert probe_kvm(machine / "vmlinuz") == ""


def test_a_qemu_that_aborts_says_why(machine: Path) -> None:
    qemu(machine, "echo 'KVM internal error. Suberror: 1' >&2\necho more >&2\nexit 134\n")
    chosen = choose("auto", machine / "vmlinuz")
    assert (chosen.name, chosen.second_level) == ("tcg", "none")
    assert chosen.reason.endswith("cannot run a stock kernel: KVM internal error. Suberror: 1")


def test_a_qemu_that_dies_without_a_word(machine: Path) -> None:
    qemu(machine, "kill -9 $$\n")
    assert probe_kvm(machine / "vmlinuz").endswith("QEMU ended")


def test_a_kernel_that_panics_early_is_not_believed(machine: Path) -> None:
    qemu(machine, _BANNER + "echo 'Kernel panic - not syncing' >>\"$console\"\n")
    assert probe_kvm(machine / "vmlinuz").endswith("QEMU ended")


@pytest.mark.parametrize("script", ["", _BANNER])
def test_a_kernel_that_hangs_is_not_believed(
    machine: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(accel, "KVM_PROBE_SECONDS", 0.2)
    qemu(machine, script + 'echo $$ >"$0.pid"\n' + _STAY)
    began = time.monotonic()
    assert "printed nothing" in probe_kvm(machine / "vmlinuz")
    assert time.monotonic() - began < 5
    pid = (machine / "bin" / "qemu-system-x86_64.pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists(), "it is not left running"


def test_a_qemu_does_not_outlive_us(machine: Path) -> None:
    qemu(machine, 'echo $$ >"$0.part" && mv "$0.part" "$0.pid"\n' + _STAY)
    script = "import sys; from pathlib import Path; from orchestrator.host import accel\n"
    script += "accel._DEVICE = Path(sys.argv[1]); accel.probe_kvm(Path('vmlinuz'))"
    note = machine / "bin" / "qemu-system-x86_64.pid"
    with subprocess.Popen([sys.executable, "-c", script, machine / "kvm"]) as orchestrator:
        assert wait_for(lambda: note.exists() or None, Deadline(10), every=0.02)
        orchestrator.kill()
    stat = Path(f"/proc/{note.read_text().strip()}/stat")

    def gone() -> bool | None:
        # Where nobody reaps orphans, it stays a zombie.
        return True if not stat.exists() or ") Z " in stat.read_text() else None

    assert wait_for(gone, Deadline(5), every=0.02)


def test_no_qemu_and_no_device(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "bin"))
    assert probe_kvm(machine / "vmlinuz") == "qemu-system-x86_64 is not installed"
    (machine / "kvm").unlink()
    assert probe_kvm(machine / "vmlinuz") == "there is no /dev/kvm"


def test_tcg_when_asked_for_starts_nothing(machine: Path) -> None:
    qemu(machine, 'touch "$0.started"\n' + _BANNER + _MEMORY)
    assert choose("tcg", machine / "vmlinuz").name == "tcg"
    assert not (machine / "bin" / "qemu-system-x86_64.started").exists()


@pytest.mark.parametrize(
    ("module", "name", "value", "expected"),
    [
        ("kvm_intel", "ept", "Y", "EPT"),
        ("kvm_intel", "ept", "N", "none"),
        ("kvm_amd", "npt", "1", "NPT"),
        ("kvm_amd", "npt", "Y", "NPT"),
        ("kvm_amd", "npt", "0", "none"),
        ("kvm_amd", "nested", "1", "none"),
    ],
)
def test_second_level(machine: Path, module: str, name: str, value: str, expected: str) -> None:
    assert second_level(HostShell()) == "none"
    parameter(machine, module, name, value)
    assert second_level(HostShell()) == expected


def test_a_probe_elsewhere_ends_with_whoever_asked(machine: Path) -> None:
    module = machine / "modules" / "kvm" / "parameters"
    pid = machine / "pid"
    qemu(machine, f"echo $$ >{pid}\n" + _STAY)

    def call(name: str, *words: Any, **_: object) -> object:
        if name == "texts":
            return {str(module): "1"}
        asked = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words[0]])  # as the reader does it
        assert wait_for(lambda: (pid.exists() and pid.read_text()) or None, Deadline(10), every=0.05)
        asked.kill()
        asked.wait()
        return {"code": None, "out": "", "err": ""}

    assert "cannot run a stock kernel" in probe_kvm_of(HostShell(call), machine / "vmlinuz")
    gone = wait_for(lambda: None if runs(int(pid.read_text())) else True, Deadline(5), every=0.05)
    if not gone:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert gone


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
