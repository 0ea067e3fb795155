"""`collapse`: nearly full ranges of a VM's memory become huge pages."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from pydantic import Field

from orchestrator.deadline import Deadline
from orchestrator.levers.base import LEVERS, Lever, LeverTarget, Prediction, Pulled, Scope
from orchestrator.model.nearly_full import MAX_GROWTH, MIN_PRESENT
from orchestrator.procfs import MEMINFO, MEMORY_PRESSURE, kib_lines, stalled_percent
from orchestrator.records.step import StepOutcome
from orchestrator.units import ENTRIES_PER_TABLE, MIB, PAGE_BYTES, Duration, Size, format_size

if TYPE_CHECKING:
    from orchestrator.levers.memory import SmallRange

_PIECE: Final = 16  # ranges in a call: what the host has free is looked at in between
_GONE: Final = "the VM's process has ended, or its id is another's"
_NOT_OURS: Final = {
    errno.EPERM: "the VM is another user's, or in a container, or who asks lacks CAP_SYS_NICE",
    errno.EACCES: "the VM is another user's",
    errno.ENOENT: _GONE,
    errno.ESRCH: _GONE,
    errno.ENOTTY: "the host's kernel does not say which pages are there (Linux 6.7 does, by PAGEMAP_SCAN)",
}


@LEVERS.register("collapse")
class Collapse(Lever):
    """Make huge pages of ranges of 2 MiB of the VM's memory that are nearly full, from outside; contents
    stay.

    process_madvise(2) with MADV_COLLAPSE (since 6.1) copies a range into a huge page, whatever
    transparent_hugepage/enabled says. KVM then maps it by one entry of a PMD table, and frees the range's
    last-level table when the guest touches it again (kvm_tdp_mmu_map(), arch/x86/kvm/mmu/tdp_mmu.c). QEMU's
    own table of the range stays, deposited.

    It works in pieces, and begins with the fullest ranges. A page of a range that the balloon or free page
    reporting took is there again afterwards: `max_growth` bounds them.
    """

    scope: ClassVar = Scope.VM
    touching_frees: ClassVar = True
    cost: ClassVar = (
        "the VM's process gains what was missing in those ranges; each is copied, and the VM waits where it "
        "touches one meanwhile"
    )
    undone: ClassVar = (
        "the kernel splits a huge page where the guest gives part of it back, by its balloon for one"
    )

    min_present: Annotated[int, Field(ge=1, le=ENTRIES_PER_TABLE)] = MIN_PRESENT
    """How many of a range's 512 pages must be there."""
    max_growth: Size = MAX_GROWTH
    """How much memory the VM's process may gain by it, at the most."""
    timeout: Duration = 60.0
    """How long it may take at the most."""
    leave_available: Size = 256 * MIB
    """It stops when the host has less available than this (MemAvailable)."""
    most_stalled: Annotated[float, Field(ge=0, le=100)] = 10.0
    """It stops when tasks of the host were stalled for memory for a larger share of the last 10 s, in percent
    (/proc/pressure/memory, `some`)."""

    def refusal(self, target: LeverTarget) -> str:
        try:
            whose = target.identity  # before its memory: the id may be another's next
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            return _NOT_OURS[error.errno]
        if not (whose.same_namespace and whose.ours):
            return _NOT_OURS[errno.EPERM]
        return target.memory.unknown or self.host_says(target)

    def host_says(self, target: LeverTarget) -> str:
        """Why the host has no memory to spare for it now; empty if it has."""
        files = target.shell.texts(MEMINFO, MEMORY_PRESSURE)
        available = kib_lines(files.get(MEMINFO, "")).get("MemAvailable")
        if available is None or available < self.leave_available:
            left = "an unknown amount" if available is None else format_size(available)
            return f"the host has {left} available, and {format_size(self.leave_available)} are to be left"
        stalled = stalled_percent(files.get(MEMORY_PRESSURE, ""))  # a kernel without PSI has no such file
        if stalled is not None and stalled > self.most_stalled:
            return f"tasks of the host were stalled for memory for {stalled:.0f} % of the last 10 s"
        return ""

    def chosen(self, target: LeverTarget) -> tuple[SmallRange, ...]:
        """The ranges, the fullest first."""
        return target.memory.candidates(self.min_present, self.max_growth)

    def predict(self, target: LeverTarget, held: int | None) -> Prediction:
        ranges = self.chosen(target)
        return Prediction(
            tables_at_least=None if held is None else max(0, held - len(ranges) * PAGE_BYTES),
            tables_at_most=held,
            takes_at_most=sum(one.missing_bytes for one in ranges),
            ranges=len(ranges),
        )

    def pull(self, target: LeverTarget) -> Pulled:
        why_not = self.refusal(target)
        if why_not:
            return Pulled(StepOutcome.REFUSED, message=why_not)
        ranges, deadline = self.chosen(target), Deadline(self.timeout)
        done = skipped = filled = 0
        errors: Counter[str] = Counter()
        for piece in _pieces(ranges):
            why_not = self.host_says(target)
            if not why_not and deadline.expired:
                why_not = f"the time of {self.timeout:.0f} s is over"
            if why_not:
                break
            addresses = [one.address for one in piece]
            try:
                came = target.shell.collapse(
                    target.qemu.pid,
                    target.identity,
                    addresses,
                    self.min_present,
                    self.max_growth - filled,
                )
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise
                why_not = _NOT_OURS[error.errno]
                break
            done, skipped, filled = done + came.done, skipped + came.skipped, filled + came.filled_bytes
            errors.update({_name(code): count for code, count in came.errors.items()})
            target.wait(0)  # a trial notices there that its guest is dead
        reasons = [why_not] if why_not else []
        reasons += [f"{name} {count}" for name, count in sorted(errors.items())]
        return Pulled(
            _outcome(len(ranges), done, skipped),
            {
                "ranges_asked": len(ranges),
                "ranges_collapsed": done,
                "ranges_skipped": skipped,
                "ranges_failed": errors.total(),
                "filled_bytes": filled,
            },
            ", ".join(reasons),
        )


def _pieces(ranges: tuple[SmallRange, ...]) -> Iterator[tuple[SmallRange, ...]]:
    for start in range(0, len(ranges), _PIECE):
        yield ranges[start : start + _PIECE]


def _name(code: str) -> str:
    return errno.errorcode.get(int(code), os.strerror(int(code)))


def _outcome(asked: int, done: int, skipped: int) -> StepOutcome:
    if done + skipped == asked:
        return StepOutcome.DONE  # what is not nearly full any more is not asked for
    return StepOutcome.PARTIAL if done else StepOutcome.REFUSED
