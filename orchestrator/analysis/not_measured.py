"""What was not measured, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.analysis.arms import RunView, TrialView
from orchestrator.analysis.text import clean

_MOST: Final = 200


def missing(view: RunView) -> Iterator[dict[str, str]]:
    """Missing metrics and readings, each with its reason once and the trials it concerns."""
    metrics: dict[tuple[str, str], list[str]] = {}
    readings: dict[tuple[str, str], list[str]] = {}
    for trial in view.trials:
        for metric, reason in trial.summary.gaps.items():
            metrics.setdefault((metric, reason), []).append(trial.summary.trial)
        for key, times in _missing_readings(trial):
            once = "once" if times == 1 else f"{times} times"
            readings.setdefault(key, []).append(f"{trial.summary.trial} ({once})")
    together: dict[tuple[str, str], list[str]] = {}
    for (what, reason), places in metrics.items():
        where = "every trial" if len(places) == len(view.trials) > 1 else ", ".join(places)
        together.setdefault((reason, where), []).append(what)
    rows = [(", ".join(names), reason, where) for (reason, where), names in together.items()]
    rows += [(what, reason, ", ".join(places)) for (what, reason), places in readings.items()]
    for what, reason, where in rows[:_MOST]:
        yield {"what": clean(what, 600), "reason": clean(reason, 300), "where": clean(where, 200)}
    if len(rows) > _MOST:
        yield {"what": f"{len(rows) - _MOST} more", "reason": "see observations.parquet", "where": ""}


def _missing_readings(trial: TrialView) -> list[tuple[tuple[str, str], int]]:
    if trial.frame is None:
        return []
    gaps = trial.frame[trial.frame["gap"] != ""]
    counts: dict[tuple[str, str], int] = {}
    for source, name, gap in zip(gaps["source"], gaps["name"], gaps["gap"], strict=True):
        key = f"{source}/{name}", str(gap)
        counts[key] = counts.get(key, 0) + 1
    return sorted(counts.items())
