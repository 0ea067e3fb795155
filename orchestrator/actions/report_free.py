"""Free page reporting, watched while it gives the guest's free memory back: `report_free`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import StepContext
from orchestrator.actions.settle import SettleTimeouts, settle
from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError
from orchestrator.host.machine import Machine
from orchestrator.procfs import kib_lines
from orchestrator.records.step import Direction, Effect, Mechanism, StepResult
from orchestrator.units import PAGE_BYTES, PMD_BYTES, Duration

_READ_SECONDS = 60.0


@ACTIONS.register("report_free")
class ReportFree(Action):
    """Let the guest report its free memory, and measure what the host gets back by it.

    Nothing can be asked for here: the guest reports by itself, 2 s after pages came free, pages that
    lie free in whole pageblocks of 2 MiB (mm/page_reporting.c: PAGE_REPORTING_DELAY,
    pageblock_order), and QEMU gives them back with MADV_DONTNEED. So the step belongs right after
    what frees memory: what was reported before it began is no part of it, and it achieves little
    then. Unlike a balloon it takes nothing away for good: the guest gets a page back by touching it.

    Bytes are guest pages present in QEMU (/proc/PID/pagemap). `requested_bytes` is an estimate of
    what could go: present pages less those that the guest uses (its RAM, less what the balloon has,
    less MemFree), at most MemFree, at least 0. Used pages that the guest never touched make it too
    small, and the shortfall negative; free memory in pieces of less than 2 MiB cannot be reported, and
    stays as the shortfall.
    """

    effect: ClassVar = Effect(Mechanism.FREE_PAGE_REPORTING, direction=Direction.TAKE)

    timeout: Duration = 60.0
    """How long it may go on at the most."""
    settle: Duration = 5.0
    """How long less than 2 MiB must come or go to count as settled; reporting itself waits 2 s."""
    watch: Duration = 0.0
    """How long to go on watching after that, for what the guest frees late."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        if not machine.balloon.free_page_reporting:
            yield FieldProblem(
                "timeout",
                "the machine's balloon does not report free pages",
                "set `machine.balloon.free_page_reporting` to true",
            )

    def describe(self) -> str:
        return "let the guest report free pages"

    def run(self, trial: StepContext) -> StepResult:
        # Not at the top: `validate` asks every action, and waits for no numpy.
        from orchestrator.host.qemu_process import page_state, ram_segments

        domain = trial.domain
        segments = ram_segments(domain, trial.machine)

        def present() -> int:
            pages = sum(int(page_state(domain.qemu, one).backed.sum()) for one in segments)
            return pages * PAGE_BYTES

        requested_ns = trial.now_ns()
        before = present()
        free = _free_bytes(trial)
        device = domain.virtio_mem()
        # QEMU counts plugged DIMMs into the balloon's size, virtio-mem not.
        used = domain.balloon_bytes() + (device.size if device else 0) - free
        could_go = max(0, min(free, before, before - used))
        came = settle(
            trial,
            present,
            before - could_go,
            before=before,
            sign=-1,
            requested_ns=requested_ns,
            patience=SettleTimeouts(self.timeout, self.settle, self.watch),
            wait=trial.sleep,
            grain=PMD_BYTES,
            estimated=True,
        )
        return StepResult(
            came.outcome,
            requested_ns=requested_ns,
            acknowledged_ns=came.acknowledged_ns,
            settled_ns=came.settled_ns,
            values={**came.values, "guest_free_bytes": free},
            curve=came.curve,
        )


def _free_bytes(trial: StepContext) -> int:
    text = trial.execute(["cat", "/proc/meminfo"], Deadline(_READ_SECONDS))
    free = kib_lines(text).get("MemFree")
    if free is None:
        raise CommandError("the guest does not say how much memory it has free", details=text[:80])
    return min(free, trial.machine.maximum_memory)
