"""KVM is believed only when a kernel has printed under it. A script on PATH plays QEMU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from played import PROGRESS, Played, places
from test_execute import plan

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BootTimeoutError, GuestLostError
from orchestrator.guest import boot
from orchestrator.guest.console import Console
from orchestrator.host import accel, kvm, kvm_cache
from orchestrator.host.accel import Acceleration, KernelFile, chosen_meanwhile, second_level
from orchestrator.host.kvm import KvmCheck, KvmState, loaded, shadow_paging
from orchestrator.host.shell import HostShell
from orchestrator.host_kinds.local import Local
from orchestrator.run import execute

# Counts its starts: each is a line in a file beside it. Standard output is the console.
_BEGIN = """\
#!/bin/sh
[ "$1" != --version ] || { echo 'QEMU emulator version 10.0.2'; exit; }
echo start >>"$0.starts"
"""
_BANNER = "echo '[    0.000000] Linux version 6.12.57 (debian)'\n"
_MEMORY = "echo '[    0.021873] Memory: 220140K/261624K available'\n"
_STAY = "while :; do sleep 0.1; done\n"
_WORKS = _BANNER + _MEMORY
_INTERNAL_ERROR = "echo 'KVM internal error. Suberror: 1' >&2; echo 'extra data[0]: 0x1' >&2\n"


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
    path.write_text(_BEGIN + script)
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


def cpu_flags(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """Let /proc/cpuinfo of this machine say so."""
    real = HostShell.texts

    def texts(shell: HostShell, *patterns: str) -> dict[str, str]:
        there = {"/proc/cpuinfo": f"processor\t: 0\nflags\t\t: fpu {flags}\n"}
        return there if patterns == ("/proc/cpuinfo",) else real(shell, *patterns)

    monkeypatch.setattr(HostShell, "texts", texts)


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
    qemu(machine, _BANNER + "sleep 0.1\n" + _MEMORY + _STAY)
    parameter(machine, "kvm_amd", "npt", "1")
    chosen = choose("auto", machine)
    assert (chosen.name, chosen.second_level) == ("kvm", "NPT")
    assert chosen.reason == "KVM: a stock kernel printed under it"


def test_a_kernel_that_prints_and_ends_at_once_is_believed(machine: Path) -> None:
    qemu(machine, _WORKS)
    assert (probe(machine).outcome, probe(machine).trouble) == (KvmState.WORKS, "")


@pytest.mark.parametrize("then", ["echo more >&2\nexit 134\n", _STAY])
def test_a_kvm_that_stops_its_guest_fails_at_once_and_says_why(machine: Path, then: str) -> None:
    # QEMU itself goes on when KVM can not (vm_stop(RUN_STATE_INTERNAL_ERROR)).
    qemu(machine, "echo 'warning: host lacks a feature' >&2\n" + _INTERNAL_ERROR + then)
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
    qemu(machine, script + 'echo $$ >"$0.pid"\n' + _STAY)
    began = time.monotonic()
    found = probe(machine)
    assert (found.outcome, found.trouble[: len(said)]) == (KvmState.HANGS, said)
    assert time.monotonic() - began < 15
    pid = (machine / "bin" / f"{kvm.QEMU}.pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists(), "it is not left running"


def test_a_qemu_does_not_outlive_us(machine: Path) -> None:
    qemu(machine, 'echo $$ >"$0.part" && mv "$0.part" "$0.pid"\n' + _STAY)
    script = "from pathlib import Path; from orchestrator.host.kvm import check_kvm\n"
    script += "from orchestrator.host.shell import HostShell; check_kvm(HostShell(), Path('vmlinuz'))"
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
    qemu(machine, _WORKS)
    assert choose("tcg", machine).name == "tcg"
    assert starts(machine) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "name", "seconds"),
    [(_WORKS + _STAY, "kvm", 20.0), (_INTERNAL_ERROR, "tcg", 20.0), (_STAY, "tcg", 1.0)],
)
def test_a_verdict_is_found_once(
    machine: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str, seconds: float
) -> None:
    monkeypatch.setattr(kvm, "KVM_PROBE_SECONDS", seconds)
    qemu(machine, script)
    first, second = choose("auto", machine), choose("auto", machine)
    assert starts(machine) == 1
    assert (first.name, first.kept, second.kept) == (name, False, True)
    assert (second.name, second.reason, second.probed_at) == (first.name, first.reason, first.probed_at)
    assert first.explanation == first.reason
    kept_since = f" (cached result of {first.probed_at}; to check again: orchestrator doctor --recheck-kvm)"
    assert second.explanation == first.reason + kept_since
    assert not choose("auto", machine, again=True).kept
    assert starts(machine) == 2
    assert len(list((machine / "cache" / "kvm").iterdir())) == 1


def device(machine: Path) -> None:
    (machine / "other").touch()
    (machine / "other").rename(machine / "kvm")


def other_qemu(machine: Path) -> None:
    qemu(machine, f"# rebuilt\n{_WORKS}")


def other_path(machine: Path) -> None:
    program = machine / "bin" / kvm.QEMU
    (machine / "bin" / "kept").mkdir()
    program.rename(machine / "bin" / "kept" / kvm.QEMU)
    program.symlink_to(machine / "bin" / "kept" / kvm.QEMU)
    (machine / "bin" / "kept" / kvm.QEMU).write_text(f"{_BEGIN}# upgraded\n{_WORKS}")


def kernel(machine: Path) -> None:
    (machine / "vmlinuz").write_text("b kernel")


def modules(machine: Path) -> None:
    parameter(machine, "kvm_other", "x", "1")


def msrs(machine: Path) -> None:
    parameter(machine, "kvm", "ignore_msrs", "Y")


@pytest.mark.parametrize("change", [device, other_qemu, other_path, kernel, modules, msrs])
def test_a_verdict_holds_for_what_it_was_made_with(machine: Path, change: Callable[[Path], None]) -> None:
    parameter(machine, "kvm", "ignore_msrs", "N")
    qemu(machine, _WORKS)
    assert not choose("auto", machine).kept
    change(machine)
    assert not choose("auto", machine).kept
    assert starts(machine) == 2
    assert choose("auto", machine).kept


def test_a_verdict_holds_for_a_boot_and_those_of_others_go(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu(machine, _WORKS)
    choose("auto", machine)
    before = list((machine / "cache" / "kvm").iterdir())
    monkeypatch.setattr(kvm, "boot_id", lambda _: "another boot")
    assert not choose("auto", machine).kept
    (after,) = (machine / "cache" / "kvm").iterdir()
    assert [after] != before


@pytest.mark.parametrize("text", ["", "{}", '{"outcome": "works"}', "[1]"])
def test_a_verdict_that_cannot_be_read_is_none(machine: Path, text: str) -> None:
    qemu(machine, _INTERNAL_ERROR)
    choose("auto", machine)
    (path,) = (machine / "cache" / "kvm").iterdir()
    path.write_text(text)
    assert choose("auto", machine).name == "tcg"
    assert starts(machine) == 2


def test_a_cache_that_cannot_be_written_to_keeps_nothing(machine: Path) -> None:
    (machine / "cache").write_text("no folder")
    qemu(machine, _WORKS)
    assert choose("auto", machine).name == "kvm"
    assert choose("auto", machine).kept is False


class Guests:
    """A host whose guests under KVM print what they are said to, and then do not answer."""

    def __init__(self, machine: Path) -> None:
        self.host: Any = SimpleNamespace(cache=machine / "cache", shell=HostShell())
        self.console = Console(machine / "console.log")
        self.console.path.write_text("what could not be restored had printed\n")

    def fails(self, printed: str, name: str = "kvm") -> BootTimeoutError:
        with pytest.raises(BootTimeoutError) as raised:
            self._fail(printed, name)
        return raised.value

    def _fail(self, printed: str, name: str) -> None:
        with boot._doubting(self.host, name, self.console):
            with self.console.path.open("a") as stream:
                stream.write(printed)
            raise BootTimeoutError("no answer", details="last try: refused")


def test_a_guest_that_prints_nothing_drops_the_verdict_that_kvm_works(machine: Path) -> None:
    qemu(machine, _WORKS)
    choose("auto", machine)
    guests = Guests(machine)
    assert guests.fails("Linux version 6.12\n").details == "last try: refused"
    assert guests.fails("", "tcg").details == "last try: refused"
    assert choose("auto", machine).kept, "neither says anything of KVM"
    details = guests.fails("").details.splitlines()
    assert details == ["last try: refused", boot._DOUBT]
    assert guests.fails("").details == "last try: refused", "there is nothing left to drop"
    qemu(machine, _INTERNAL_ERROR)
    assert choose("auto", machine).name == "tcg"


def test_a_verdict_that_kvm_fails_is_no_guest_s_to_drop(machine: Path) -> None:
    qemu(machine, _INTERNAL_ERROR)
    choose("auto", machine)
    assert not kvm_cache.forget_working(machine / "cache", HostShell())
    assert choose("auto", machine).kept

    def lost(*_: object, **__: object) -> object:
        raise GuestLostError("the host is lost")

    assert not kvm_cache.forget_working(machine / "cache", HostShell(lost))


def test_the_probe_goes_on_beside_other_work(machine: Path) -> None:
    qemu(machine, 'until [ -e "$0.go" ]; do sleep 0.02; done\n' + _WORKS)
    with chosen_meanwhile("auto", KernelFile(machine / "vmlinuz", "x"), machine / "cache") as chosen:
        assert wait_for(lambda: starts(machine) or None, Deadline(10), every=0.02)
        (machine / "bin" / f"{kvm.QEMU}.go").touch()  # what comes of the work
        assert chosen().name == "kvm"


def test_the_probe_ends_with_the_work_beside_it(machine: Path) -> None:
    qemu(machine, 'echo $$ >"$0.pid"\n' + _STAY)
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


@pytest.mark.slow
def test_only_the_first_of_two_runs_waits_for_a_kvm_that_hangs(machine: Path, trials: Played) -> None:
    # It hangs until libvirt has been opened: were one to wait for the other, it would be for the deadline.
    qemu(machine, 'until [ -e "$0.go" ]; do sleep 0.02; done\n' + _INTERNAL_ERROR)

    class Opening(Local):
        @contextmanager
        def connect(self, runtime: Path, cache: Path) -> Iterator[Any]:
            if not (machine / "cache" / "kvm").exists():
                tried = wait_for(lambda: starts(machine) or None, Deadline(10), every=0.02)
                assert tried, "it is being tried"
            (machine / "bin" / f"{kvm.QEMU}.go").touch()
            yield SimpleNamespace(shell=HostShell(), embedded=False, uri="", versions={"qemu": "10.0.2"})

    trials.hosts, trials.kernel = Opening, machine / "vmlinuz"
    notes: list[str] = []
    progress = SimpleNamespace(**{**vars(PROGRESS), "note": notes.append})
    for name in ("first", "second"):
        execute.execute_plan(
            plan("  - wait: {time: 1s}\n"), places(machine), machine / name, progress, machinery=trials
        )
        assert starts(machine) == 1
    assert len(trials.ran) == 8
    first, second = notes
    assert first.endswith("KVM internal error. Suberror: 1")
    assert second.startswith(f"{first} (cached result of ")


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
    *, machine: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], flags: str, expected: str
) -> None:
    cpu_flags(monkeypatch, flags)
    for module in there:
        parameter(machine, module, "x", "1")
    assert loaded(HostShell()) == there
    assert shadow_paging(HostShell()) == expected
    parameter(machine, "kvm_amd", "npt", "1")
    assert shadow_paging(HostShell()) == ""


def test_what_hangs_under_pvm_says_so_also_when_kept(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "KVM_PROBE_SECONDS", 0.2)
    cpu_flags(monkeypatch, "hypervisor")
    parameter(machine, "kvm_pvm", "x", "1")
    qemu(machine, _STAY)
    for _ in range(2):
        assert "printed nothing under KVM in 0 s; this KVM is PVM" in choose("auto", machine).reason
    qemu(machine, _WORKS)
    chosen = choose("auto", machine)
    assert chosen.name == "kvm", "the module alone says nothing"
    assert "; this KVM is PVM" in chosen.reason


def elsewhere(machine: Path, boot: str) -> HostShell:
    """A host elsewhere that is this machine in another boot, as its reader answers."""
    from orchestrator.host import reader

    def call(name: str, *words: Any, **_: object) -> object:
        found = reader.CALLS[name](*words)
        return dict.fromkeys(found, boot) if "boot_id" in str(words[0]) else found

    shell = HostShell(call)
    target: Any = SimpleNamespace(name=f"root@{boot}", ours=False)
    shell.target = target
    return shell


def test_hosts_elsewhere_have_verdicts_of_their_own(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostShell, "place", lambda shell, path, key: path)
    qemu(machine, _INTERNAL_ERROR)
    choose("auto", machine)
    there, other = elsewhere(machine, "one"), elsewhere(machine, "two")
    assert not choose("auto", machine, shell=there).kept
    assert choose("auto", machine, shell=there).kept
    assert choose("auto", machine).kept, "that one is still kept, too"
    assert not choose("auto", machine, shell=other).kept
    assert starts(machine) == 3
    (machine / "kvm").unlink()
    assert choose("auto", machine, shell=there).reason.endswith("there is no /dev/kvm on root@one")


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


def test_a_kept_verdict_needs_no_copy_of_the_kernel(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[str] = []

    def place(_: HostShell, path: Path, key: str) -> Path:
        placed.append(key)
        return path

    monkeypatch.setattr(HostShell, "place", place)
    qemu(machine, _WORKS)
    there = elsewhere(machine, "one")
    for _ in range(2):
        choose("auto", machine, shell=there)
    assert placed == ["boot/vmlinuz"]


def test_a_probe_elsewhere_ends_with_whoever_asked(machine: Path) -> None:
    pid = machine / "pid"
    qemu(machine, f"echo $$ >{pid}\n" + _STAY)
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
