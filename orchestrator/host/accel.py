"""How guests of a host run: under KVM where it works, else emulated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from orchestrator.host import kvm_cache
from orchestrator.host.kvm import (
    KvmCheck,
    KvmState,
    check_kvm,
    identity,
    qemu_version,
    second_level,
    shadow_paging,
    unusable,
)
from orchestrator.host.shell import HostShell
from orchestrator.records.accel import ICOUNT, KVM, TCG

__all__ = ["Acceleration", "KernelFile", "choose", "chosen_meanwhile", "second_level"]

PROBE_AGAIN = "orchestrator doctor --recheck-kvm"
_TIME = "%Y-%m-%d %H:%M UTC"


@dataclass(frozen=True)
class KernelFile:
    """The kernel to try KVM with: a file of this machine, and the name that a copy elsewhere goes by."""

    path: Path
    place: str


@dataclass(frozen=True)
class Acceleration:
    """`name` is one of `records.accel`; `reason` is one line for people; `second_level` is EPT, NPT or none.

    `probed_at` is when a kernel was tried under KVM for this, in UTC; empty if none was. `kept`: that was
    not now, the check is one that was kept.
    """

    name: str
    reason: str
    second_level: str
    probed_at: str = ""
    kept: bool = False

    @property
    def explanation(self) -> str:
        """The reason, and of a check that was kept, since when and how to make it anew."""
        if not self.kept:
            return self.reason
        return f"{self.reason} (cached result of {self.probed_at}; to check again: {PROBE_AGAIN})"


class _StoppedError(Exception):
    """The probe was ended before it found anything."""


def choose(
    wanted: str,
    kernel: KernelFile,
    cache: Path,
    shell: HostShell | None = None,
    *,
    again: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Acceleration:
    """What is asked for, decided: `auto`, or one of `records.accel`. Asking for kvm where it does not work is
    left to the caller.

    `shell` is a host elsewhere. The KVM check is kept in `cache`; `again` probes whatever is kept.
    """
    if wanted == TCG:
        return Acceleration(TCG, "software emulation, as the scenario asks", "none")
    if wanted == ICOUNT:
        reason = "software emulation whose clock counts instructions, as the scenario asks"
        return Acceleration(ICOUNT, reason, "none")
    shell = shell or HostShell()
    trouble = unusable(shell)
    if trouble:
        return Acceleration(TCG, f"software emulation: {trouble}", "none")
    check, is_kept = _check(kernel, cache, shell, again=again, stopped=stopped)
    if check.outcome is not KvmState.WORKS:
        reason = f"software emulation: {check.trouble}"
        return Acceleration(TCG, reason, "none", check.probed_at, is_kept)
    level = second_level(shell)
    what = "" if level != "none" else shadow_paging(shell)
    reason = "KVM: a stock kernel printed under it" + (f"; {what}" if what else "")
    return Acceleration(KVM, reason, level, check.probed_at, is_kept)


def _check(
    kernel: KernelFile, cache: Path, shell: HostShell, *, again: bool, stopped: Callable[[], bool]
) -> tuple[kvm_cache.CachedKvmCheck, bool]:
    """The check, and whether it is one that was kept."""
    holds_for = identity(shell)
    key = kvm_cache.cache_key(holds_for, kernel.path) if holds_for else ""
    found = kvm_cache.read(cache, key) if key and not again else None
    if found:
        return found, True
    probe = check_kvm(shell, shell.place(kernel.path, kernel.place), stopped)
    if probe is None:
        raise _StoppedError
    check = _made(shell, holds_for.get("boot_id", ""), probe)
    if key:
        kvm_cache.save(cache, key, check)
    return check, False


def _made(shell: HostShell, boot: str, probe: KvmCheck) -> kvm_cache.CachedKvmCheck:
    return kvm_cache.CachedKvmCheck(
        host=shell.name,
        boot_id=boot,
        outcome=probe.outcome,
        trouble=probe.trouble,
        seconds=round(probe.seconds, 3),
        probed_at=time.strftime(_TIME, time.gmtime()),
        qemu_version=qemu_version(shell),
    )


@contextmanager
def chosen_meanwhile(wanted: str, kernel: KernelFile, cache: Path) -> Iterator[Callable[[], Acceleration]]:
    """`choose` for this machine, while the caller does something else. What it gives waits for the outcome.

    Where the block ends before, so does the probe.
    """
    end = Event()
    with ThreadPoolExecutor(1, "KVM probe") as pool:
        future = pool.submit(choose, wanted, kernel, cache, stopped=end.is_set)
        try:
            yield future.result
        finally:
            end.set()
