"""KVM is believed only when a kernel has printed under it. A script on PATH plays QEMU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.deadline import Deadline, wait_for
from orchestrator.host import accel, kvm, reader
from orchestrator.host.accel import Acceleration, KernelFile, chosen_meanwhile, second_level
from orchestrator.host.kvm import KvmCheck, KvmState, loaded, shadow_paging
from orchestrator.host.shell import Call, HostShell

# Counts its starts: each is a line in a file beside it. Standard output is the console.
BEGIN = """\
#!/bin/sh
[ "$1" != --version ] || { echo 'QEMU emulator version 10.0.2'; exit; }
echo start >>"$0.starts"
"""
_BANNER = "echo '[    0.000000] Linux version 6.12.57 (debian)'\n"
_MEMORY = "echo '[    0.021873] Memory: 220140K/261624K available'\n"
STAY = "while :; do sleep 0.1; done\n"
WORKS = _BANNER + _MEMORY
INTERNAL_ERROR = "echo 'KVM internal error. Suberror: 1' >&2; echo 'extra data[0]: 0x1' >&2\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a /dev/kvm, a kernel, and a folder at the front of PATH for its programs."""
    (tmp_path / "kvm").touch()
    (tmp_path / "vmlinuz").write_text("a kernel")
    monkeypatch.setattr(kvm, "_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(kvm, "_MODULES", tmp_path / "modules")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path


def qemu(machine: Path, script: str) -> None:
    path = machine / "bin" / kvm.QEMU
    path.write_text(BEGIN + script)
    path.chmod(0o755)


def starts(machine: Path) -> int:
    """How often a kernel was tried."""
    noted = machine / "bin" / f"{kvm.QEMU}.starts"
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def choose(wanted: str, machine: Path, **words: Any) -> Acceleration:
    return accel.choose(wanted, KernelFile(machine / "vmlinuz", "boot/vmlinuz"), machine / "cache", **words)


def probe(machine: Path) -> KvmCheck:
    found = kvm.check_kvm(HostShell(), machine / "vmlinuz")
    assert found is not None
    return found


def told(path: str, text: str) -> Call:
    """Answers of this machine, of which one file has another text."""

    def call(name: str, *words: Any, **_: object) -> object:
        found = reader.CALLS[name](*words)
        return {**found, path: text} if name == "texts" and path in words[0] else found

    return call


def with_cpu_flags(flags: str) -> HostShell:
    """This machine, with such a CPU."""
    return HostShell(told("/proc/cpuinfo", f"processor\t: 0\nflags\t\t: fpu {flags}\n"))


def parameter(machine: Path, module: str, name: str, value: str) -> None:
    folder = machine / "modules" / module / "parameters"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value + "\n")


def test_what_counts_instructions_is_tcg_and_no_kvm_is_tried(machine: Path) -> None:
    chosen = choose("tcg-icount", machine)
    assert (chosen.name, chosen.second_level, chosen.probed_at) == ("tcg-icount", "none", "")
    assert "counts instructions" in chosen.reason
    assert starts(machine) == 0


def test_a_kernel_that_prints_is_believed(machine: Path) -> None:
    qemu(machine, _BANNER + "sleep 0.1\n" + _MEMORY + STAY)
    parameter(machine, "kvm_amd", "npt", "1")
    chosen = choose("auto", machine)
    assert (chosen.name, chosen.second_level) == ("kvm", "NPT")
    assert chosen.reason == "KVM: a stock kernel printed under it"


def test_a_kernel_that_prints_and_ends_at_once_is_believed(machine: Path) -> None:
    qemu(machine, WORKS)
    assert (probe(machine).outcome, probe(machine).trouble) == (KvmState.WORKS, "")


@pytest.mark.parametrize("then", ["echo more >&2\nexit 134\n", STAY])
def test_a_kvm_that_stops_its_guest_fails_at_once_and_says_why(machine: Path, then: str) -> None:
    # QEMU itself goes on when KVM can not (vm_stop(RUN_STATE_INTERNAL_ERROR)).
    qemu(machine, "echo 'warning: host lacks a feature' >&2\n" + INTERNAL_ERROR + then)
    began = time.monotonic()
    chosen = choose("auto", machine)
    assert time.monotonic() - began < kvm.KVM_PROBE_SECONDS / 2
    assert (chosen.name, chosen.second_level) == ("tcg", "none")
    says = r"cannot run a stock kernel, which failed after [0-9]\.[0-9] s: KVM internal error. Suberror: 1$"
    assert re.search(says, chosen.reason)


def test_a_qemu_that_aborts_says_why(machine: Path) -> None:
    qemu(machine, "echo 'kvm_buf_set_msrs: Assertion failed.' >&2\necho more >&2\nexit 134\n")
    found = probe(machine)
    assert found.outcome is KvmState.FAILS
    assert found.trouble.endswith(" s: kvm_buf_set_msrs: Assertion failed.")


def test_a_qemu_that_dies_without_a_word(machine: Path) -> None:
    qemu(machine, "kill -9 $$\n")
    assert probe(machine).trouble.endswith("QEMU ended")


def test_a_kernel_that_panics_early_is_not_believed(machine: Path) -> None:
    qemu(machine, _BANNER + "echo 'Kernel panic - not syncing'\n")
    assert (probe(machine).outcome, probe(machine).trouble[-10:]) == (KvmState.FAILS, "QEMU ended")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "a stock kernel printed nothing under KVM in 2 s"),
        (_BANNER, "a stock kernel got no further than '[    0.000000] Linux version 6.12.57 (debian)' under"),
    ],
)
def test_a_kernel_that_hangs_is_not_believed(
    machine: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(kvm, "KVM_PROBE_SECONDS", 2.0)
    qemu(machine, script + 'echo $$ >"$0.pid"\n' + STAY)
    began = time.monotonic()
    found = probe(machine)
    assert (found.outcome, found.trouble[: len(said)]) == (KvmState.HANGS, said)
    assert time.monotonic() - began < 15
    pid = (machine / "bin" / f"{kvm.QEMU}.pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists(), "it is not left running"


def test_a_qemu_does_not_outlive_us(machine: Path) -> None:
    qemu(machine, 'echo $$ >"$0.part" && mv "$0.part" "$0.pid"\n' + STAY)
    script = "from pathlib import Path; from orchestrator.host.kvm import check_kvm\n"
    script += "from orchestrator.host.shell import Call, HostShell; check_kvm(HostShell(), Path('vmlinuz'))"
    note = machine / "bin" / f"{kvm.QEMU}.pid"
    with subprocess.Popen([sys.executable, "-c", script]) as orchestrator:
        assert wait_for(lambda: note.exists() or None, Deadline(10), every=0.02)
        orchestrator.kill()
    stat = Path(f"/proc/{note.read_text().strip()}/stat")

    def gone() -> bool | None:
        # Where no process reaps orphans, it stays a zombie.
        return True if not stat.exists() or ") Z " in stat.read_text() else None

    assert wait_for(gone, Deadline(5), every=0.02)


def test_no_qemu_no_rights_and_no_device(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "bin" / "setpriv").symlink_to("/usr/bin/setpriv")
    monkeypatch.setenv("PATH", str(machine / "bin"))
    assert choose("auto", machine).reason.endswith(": qemu-system-x86_64 is not installed")
    (machine / "kvm").unlink()
    assert choose("auto", machine).reason.endswith(": there is no /dev/kvm")
    shell = HostShell(lambda name, *words, **_: {"code": 0, "out": "rights\n", "err": ""})
    assert kvm.unusable(shell) == "/dev/kvm is not yours to open (be in group kvm)"
    assert not (machine / "cache").exists(), "what is seen at a glance is not kept"


def test_tcg_when_asked_for_starts_nothing(machine: Path) -> None:
    qemu(machine, WORKS)
    assert choose("tcg", machine).name == "tcg"
    assert starts(machine) == 0


def test_the_probe_goes_on_beside_other_work(machine: Path) -> None:
    qemu(machine, 'until [ -e "$0.go" ]; do sleep 0.02; done\n' + WORKS)
    with chosen_meanwhile("auto", KernelFile(machine / "vmlinuz", "x"), machine / "cache") as chosen:
        assert wait_for(lambda: starts(machine) or None, Deadline(10), every=0.02)
        (machine / "bin" / f"{kvm.QEMU}.go").touch()  # what comes of the work
        assert chosen().name == "kvm"


def test_the_probe_ends_with_the_work_beside_it(machine: Path) -> None:
    qemu(machine, 'echo $$ >"$0.pid"\n' + STAY)
    note = machine / "bin" / f"{kvm.QEMU}.pid"
    began = time.monotonic()

    def interrupted() -> None:
        with chosen_meanwhile("auto", KernelFile(machine / "vmlinuz", "x"), machine / "cache"):
            assert wait_for(lambda: (note.exists() and note.read_text()) or None, Deadline(10), every=0.02)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < kvm.KVM_PROBE_SECONDS / 2
    assert not Path(f"/proc/{note.read_text().strip()}").exists()
    assert not (machine / "cache").exists(), "it found nothing"


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


@pytest.mark.parametrize(
    ("there", "flags", "expected"),
    [
        ((), "", ""),
        (("kvm", "kvm_intel"), "vmx", "this KVM (kvm_intel) has no EPT or NPT: shadow paging"),
        (
            ("kvm", "kvm_pvm"),
            "hypervisor",
            "this KVM is PVM (module kvm_pvm): shadow paging, no EPT or NPT, on a CPU without VMX and SVM",
        ),
        (
            ("kvm", "kvm_new"),
            "",
            "this KVM (kvm_new) has no EPT or NPT: shadow paging, on a CPU without VMX and SVM",
        ),
    ],
)
def test_what_a_kvm_without_a_second_level_is(
    machine: Path, there: tuple[str, ...], flags: str, expected: str
) -> None:
    shell = with_cpu_flags(flags)
    for module in there:
        parameter(machine, module, "x", "1")
    assert loaded(shell) == there
    assert shadow_paging(shell) == expected
    parameter(machine, "kvm_amd", "npt", "1")
    assert shadow_paging(shell) == ""


@pytest.mark.parametrize(("ours", "seconds"), [(True, 4 * 20.0), (False, 20.0)])
def test_a_nested_host_has_four_times_as_long(ours: bool, seconds: float) -> None:
    asked: list[float] = []

    def call(name: str, *words: Any, **_: object) -> object:
        if name == "watch":
            asked.append(words[3])
        return {"how": "time", "out": "", "err": "", "seconds": 1.0} if name == "watch" else {}

    shell = HostShell(call)
    target: Any = SimpleNamespace(name="h", ours=ours)
    shell.target = target
    kvm.check_kvm(shell, Path("vmlinuz"))
    assert asked == [seconds]


def test_a_probe_elsewhere_ends_with_whoever_asked(machine: Path) -> None:
    pid = machine / "pid"
    qemu(machine, f"echo $$ >{pid}\n" + STAY)
    script = (
        "import sys; from orchestrator.host import reader; reader.serve(sys.stdin.buffer, sys.stdout.buffer)"
    )
    line = f'["watch", ["{kvm.QEMU}"], ["never"], "never", 60]\n'.encode()
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as there:
        assert there.stdin
        there.stdin.write(line)
        there.stdin.flush()
        assert wait_for(lambda: (pid.exists() and pid.read_text()) or None, Deadline(10), every=0.05)
        there.kill()
    gone = wait_for(lambda: None if runs(int(pid.read_text())) else True, Deadline(5), every=0.05)
    if not gone:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert gone


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
