"""Integrity findings: wrong contents, stuck threads, kernel log errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from orchestrator.records.events import Event, KernelLogRead, StepEnd, WorkloadFinding, of_kind
from orchestrator.records.summary import Finding

_NONE_ENDED: Final = "no workload that checks contents was stopped: then it says what it found"
_NO_LOG: Final = "the kernel's log was not read: the trial was ended before, or is of an older version"

# metric: what a workload calls it when it is stopped
_FIGURES: Final = (
    ("integrity_checked_bytes", "checked_bytes"),
    ("integrity_mismatches", "mismatches"),
    ("integrity_stuck_threads", "stuck_threads"),
)


def integrity_of(events: Sequence[Event]) -> Iterator[tuple[str, int | None, str]]:
    """Each metric, its value, and why it is missing if it is None: sums over all that ran in the trial."""
    ends = of_kind(events, StepEnd)
    begun, stopped = ([end for end in ends if end.action == word] for word in ("start", "stop"))
    for metric, figure in _FIGURES:
        values = [value for end in stopped if (value := end.value(figure)) is not None]
        # A workload that checks says at its start, too, how much it has checked by then.
        open_end = len(values) < sum(end.value("checked_bytes") is not None for end in begun)
        known = values and not (open_end and not sum(values))
        yield metric, int(sum(values)) if known else None, _NONE_ENDED
    yield "kernel_log_complaints", *_complaints(of_kind(events, KernelLogRead))


def findings_of(events: Sequence[Event]) -> tuple[Finding, ...]:
    """What was found, in the order of the trial."""
    return tuple(finding for event in events for finding in _findings(event))


def _complaints(logs: Sequence[KernelLogRead]) -> tuple[int | None, str]:
    """Of all kernels together. One that was not read leaves it open, unless another one complains."""
    read = [log.complaints for log in logs if log.complaints is not None]
    gap = next((log.gap for log in logs if log.gap), "")
    if not read or (gap and not sum(read)):
        return None, gap or _NO_LOG
    return sum(read), ""


def _findings(event: Event) -> Iterator[Finding]:
    seconds = event.t_ns / 1e9
    if isinstance(event, WorkloadFinding):
        yield Finding(
            kind=event.kind,
            by=event.workload,
            seconds=seconds,
            text=event.text,
            address=event.address,
            expected=event.expected,
            found=event.found,
        )
    elif isinstance(event, KernelLogRead):
        for kind, lines in (("kernel-log", event.lines), ("stall", event.stall_lines)):
            for line in lines:
                yield Finding(kind=kind, by=event.of, seconds=seconds, text=line)
