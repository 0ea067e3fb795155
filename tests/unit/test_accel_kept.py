"""The check of KVM that is kept: for what it holds, who drops it, and hosts elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from played import PROGRESS, Played, places
from test_accel import (
    BEGIN,
    INTERNAL_ERROR,
    STAY,
    WORKS,
    choose,
    machine,
    parameter,
    qemu,
    starts,
    told,
    with_cpu_flags,
)
from test_execute import plan

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BootTimeoutError, GuestLostError
from orchestrator.guest import boot
from orchestrator.guest.console import Console
from orchestrator.host import kvm, kvm_cache
from orchestrator.host.shell import HostShell
from orchestrator.host_kinds.local import Local
from orchestrator.run import execute

__all__ = ["machine"]

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "name", "seconds"),
    [(WORKS + STAY, "kvm", 20.0), (INTERNAL_ERROR, "tcg", 20.0), (STAY, "tcg", 1.0)],
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
    qemu(machine, f"# rebuilt\n{WORKS}")


def other_path(machine: Path) -> None:
    program = machine / "bin" / kvm.QEMU
    (machine / "bin" / "kept").mkdir()
    program.rename(machine / "bin" / "kept" / kvm.QEMU)
    program.symlink_to(machine / "bin" / "kept" / kvm.QEMU)
    (machine / "bin" / "kept" / kvm.QEMU).write_text(f"{BEGIN}# upgraded\n{WORKS}")


def kernel(machine: Path) -> None:
    (machine / "vmlinuz").write_text("b kernel")


def modules(machine: Path) -> None:
    parameter(machine, "kvm_other", "x", "1")


def msrs(machine: Path) -> None:
    parameter(machine, "kvm", "ignore_msrs", "Y")


@pytest.mark.parametrize("change", [device, other_qemu, other_path, kernel, modules, msrs])
def test_a_verdict_holds_for_what_it_was_made_with(machine: Path, change: Callable[[Path], None]) -> None:
    parameter(machine, "kvm", "ignore_msrs", "N")
    qemu(machine, WORKS)
    assert not choose("auto", machine).kept
    change(machine)
    assert not choose("auto", machine).kept
    assert starts(machine) == 2
    assert choose("auto", machine).kept


def test_a_verdict_holds_for_a_boot_and_those_of_others_go(machine: Path) -> None:
    qemu(machine, WORKS)
    choose("auto", machine)
    before = list((machine / "cache" / "kvm").iterdir())
    rebooted = HostShell(told(_BOOT_ID, "another boot\n"))
    assert not choose("auto", machine, shell=rebooted).kept
    (after,) = (machine / "cache" / "kvm").iterdir()
    assert [after] != before


@pytest.mark.parametrize("text", ["", "{}", '{"outcome": "works"}', "[1]"])
def test_a_verdict_that_cannot_be_read_is_none(machine: Path, text: str) -> None:
    qemu(machine, INTERNAL_ERROR)
    choose("auto", machine)
    (path,) = (machine / "cache" / "kvm").iterdir()
    path.write_text(text)
    assert choose("auto", machine).name == "tcg"
    assert starts(machine) == 2


def test_a_cache_that_cannot_be_written_to_keeps_nothing(machine: Path) -> None:
    (machine / "cache").write_text("no folder")
    qemu(machine, WORKS)
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
    qemu(machine, WORKS)
    choose("auto", machine)
    guests = Guests(machine)
    assert guests.fails("Linux version 6.12\n").details == "last try: refused"
    assert guests.fails("", "tcg").details == "last try: refused"
    assert choose("auto", machine).kept, "neither says anything of KVM"
    details = guests.fails("").details.splitlines()
    assert details == ["last try: refused", boot._DOUBT]
    assert guests.fails("").details == "last try: refused", "there is nothing left to drop"
    qemu(machine, INTERNAL_ERROR)
    assert choose("auto", machine).name == "tcg"


def test_a_verdict_that_kvm_fails_is_no_guest_s_to_drop(machine: Path) -> None:
    qemu(machine, INTERNAL_ERROR)
    choose("auto", machine)
    assert not kvm_cache.forget_working(machine / "cache", HostShell())
    assert choose("auto", machine).kept

    def lost(*_: object, **__: object) -> object:
        raise GuestLostError("the host is lost")

    assert not kvm_cache.forget_working(machine / "cache", HostShell(lost))


@pytest.mark.slow
def test_only_the_first_of_two_runs_waits_for_a_kvm_that_hangs(machine: Path, trials: Played) -> None:
    # It hangs until libvirt has been opened: were one to wait for the other, it would be for the deadline.
    qemu(machine, 'until [ -e "$0.go" ]; do sleep 0.02; done\n' + INTERNAL_ERROR)

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


def test_what_hangs_under_pvm_says_so_also_when_kept(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "KVM_PROBE_SECONDS", 0.2)
    shell = with_cpu_flags("hypervisor")
    parameter(machine, "kvm_pvm", "x", "1")
    qemu(machine, STAY)
    for _ in range(2):
        assert (
            "printed nothing under KVM in 0 s; this KVM is PVM" in choose("auto", machine, shell=shell).reason
        )
    qemu(machine, WORKS)
    chosen = choose("auto", machine, shell=shell)
    assert chosen.name == "kvm", "the module alone says nothing"
    assert "; this KVM is PVM" in chosen.reason


class Elsewhere(HostShell):
    """A host elsewhere that is this machine in another boot, as its reader answers."""

    def __init__(self, boot: str) -> None:
        super().__init__(told(_BOOT_ID, boot))
        target: Any = SimpleNamespace(name=f"root@{boot}", ours=False)
        self.target = target
        self.placed: list[str] = []

    def place(self, path: Path, key: str) -> Path:
        self.placed.append(key)
        return path


def test_hosts_elsewhere_have_verdicts_of_their_own(machine: Path) -> None:
    qemu(machine, INTERNAL_ERROR)
    choose("auto", machine)
    there, other = Elsewhere("one"), Elsewhere("two")
    assert not choose("auto", machine, shell=there).kept
    assert choose("auto", machine, shell=there).kept
    assert choose("auto", machine).kept, "that one is still kept, too"
    assert not choose("auto", machine, shell=other).kept
    assert starts(machine) == 3
    (machine / "kvm").unlink()
    assert choose("auto", machine, shell=there).reason.endswith("there is no /dev/kvm on root@one")


def test_a_kept_verdict_needs_no_copy_of_the_kernel(machine: Path) -> None:
    qemu(machine, WORKS)
    there = Elsewhere("one")
    for _ in range(2):
        choose("auto", machine, shell=there)
    assert there.placed == ["boot/vmlinuz"]
