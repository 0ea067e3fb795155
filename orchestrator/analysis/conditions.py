"""Under what conditions a run's figures hold: what guests are made of, and what executes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.analysis.text import clean, counted, size
from orchestrator.records.accel import ICOUNT, KVM, TCG, is_emulated
from orchestrator.records.plan import ArmRecord, Object
from orchestrator.store import Run
from orchestrator.summary import TrialSummary

_ACCELERATION: Final = {
    KVM: "KVM",
    TCG: "TCG (software emulation)",
    ICOUNT: "TCG (software emulation), its clock counts instructions",
}
# What stands beside a rate or a time that was taken under software emulation.
NOT_COMPARABLE: Final = "TCG: not comparable with real machines"


@dataclass(frozen=True)
class Condition:
    """One of them: what it is called, and its value; of arms that differ, each value with its arms."""

    name: str
    value: str


@dataclass(frozen=True)
class Conditions:
    """All of them. `emulated`: a trial ran under TCG; no rate or time is comparable with real machines."""

    rows: tuple[Condition, ...]
    emulated: bool


def conditions_of(run: Run, summaries: Sequence[TrialSummary]) -> Conditions:
    """From the plan, and from what executed the trials; what neither says is left out."""
    accels = _accels(summaries)
    level = run.meta.second_level
    second = f", second level {clean(level, 20)}" if level not in {"", "none"} else ""
    rows = [Condition("acceleration", _words(accels) + second)] if accels else []
    for name, of in _OF_AN_ARM:
        values: dict[str, list[str]] = {}
        for arm in run.plan.arms:
            if value := of(arm):
                values.setdefault(value, []).append(clean(arm.name, 60))
        if values:
            rows.append(Condition(name, _by_arm(values, len(run.plan.arms))))
    if on_hosts := _hosts(summaries):
        rows.append(Condition("hosts", on_hosts))
    return Conditions(tuple(rows), emulated=any(map(is_emulated, accels)))


def _hosts(summaries: Sequence[TrialSummary]) -> str:
    """How many trials ran on each host, where there are several."""
    trials = Counter(summary.host for summary in summaries)
    each = [
        f"{clean(host, 64) or 'not known'} ({counted(number, 'trial')})"
        for host, number in sorted(trials.items())
    ]
    return ", ".join(each) if len(each) > 1 else ""


def emulated(summaries: Iterable[TrialSummary]) -> bool:
    """Whether any trial ran under software emulation."""
    return any(map(is_emulated, _accels(summaries)))


def _accels(summaries: Iterable[TrialSummary]) -> list[str]:
    return sorted({str(one.metrics["accel"]) for one in summaries if one.metrics.get("accel")})


def _words(accels: Sequence[str]) -> str:
    return " and ".join(_ACCELERATION.get(accel, clean(accel, 40)) for accel in accels)


def _by_arm(values: Mapping[str, Sequence[str]], arms: int) -> str:
    """One value where all arms have it; else each with its arms, in the order of the scenario."""
    if len(values) == 1 and len(next(iter(values.values()))) == arms:
        return next(iter(values))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in values.items())


def _part(part: Any, *keys: str) -> Any:  # any JSON
    for key in keys:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _bytes(part: Object | None, *keys: str) -> str:
    value = _part(part, *keys)
    return size(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _text(part: Object | None, *keys: str) -> str:
    value = _part(part, *keys)
    return "" if value is None else clean(value, 60)


def _memory(arm: ArmRecord) -> str:
    boot, device = _bytes(arm.machine, "memory"), _bytes(arm.machine, "virtio_mem", "size")
    return f"{boot} + up to {device} by virtio-mem" if boot and device else boot


def _thp(arm: ArmRecord) -> str:
    value = _text(arm.setup, "thp")
    return "as in the guest's image" if value == "image" else value


_OF_AN_ARM: Final[tuple[tuple[str, Callable[[ArmRecord], str]], ...]] = (
    ("vCPUs", lambda arm: _text(arm.machine, "vcpus")),
    ("memory", _memory),
    ("virtio-mem block", lambda arm: _bytes(arm.machine, "virtio_mem", "block")),
    ("online policy", lambda arm: _text(arm.setup, "online_policy")),
    ("THP", _thp),
)
