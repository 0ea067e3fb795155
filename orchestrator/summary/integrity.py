"""What must not be: contents that changed, threads that stood still, complaints of kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from orchestrator.records.summary import Finding
from orchestrator.store import Event

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
    ends = [event for event in events if event.name == "step.end"]
    begun, stopped = ([event for event in ends if event.text("action") == word] for word in ("start", "stop"))
    for metric, figure in _FIGURES:
        values = [value for event in stopped if (value := event.number(figure)) is not None]
        # A workload that checks says at its start, too, how much it has checked by then.
        open_end = len(values) < sum(event.number("checked_bytes") is not None for event in begun)
        known = values and not (open_end and not sum(values))
        yield metric, int(sum(values)) if known else None, _NONE_ENDED
    yield "kernel_log_complaints", *_complaints([event for event in events if event.name == "kernel.log"])


def findings_of(events: Sequence[Event]) -> tuple[Finding, ...]:
    """What was found, in the order of the trial."""
    return tuple(finding for event in events for finding in _findings(event))


def _complaints(logs: Sequence[Event]) -> tuple[int | None, str]:
    """Of all kernels together. One that was not read leaves it open, unless another one complains."""
    read = [int(value) for log in logs if (value := log.number("complaints")) is not None]
    gap = next((log.text("gap") for log in logs if log.text("gap")), "")
    if not read or (gap and not sum(read)):
        return None, gap or _NO_LOG
    return sum(read), ""


def _findings(event: Event) -> Iterator[Finding]:
    seconds = event.t_ns / 1e9
    if event.name == "finding":
        texts = {key: event.text(key) for key in ("kind", "text", "address", "expected", "found")}
        yield Finding(by=event.text("workload"), seconds=seconds, **texts)
    elif event.name == "kernel.log":
        for kind, key in (("kernel-log", "lines"), ("stall", "stall_lines")):
            for line in _lines(event.fields, key):
                yield Finding(kind=kind, by=event.text("of"), seconds=seconds, text=line)


def _lines(fields: Mapping[str, Any], key: str) -> list[str]:
    lines = fields.get(key)
    return [str(line) for line in lines] if isinstance(lines, list) else []
