"""What `claims --run` did and found as JSON (docs/json.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.claims import Claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.judge import JudgedPart
from orchestrator.retest.changes import ClaimChange, PartChange
from orchestrator.retest.jobs import RunJob
from orchestrator.retest.loop import JobState
from orchestrator.stats import Difference


def untestable(claims: Iterable[Claim]) -> list[dict[str, str]]:
    """Parts that nothing here can test, with the reason."""
    return [
        {"claim": claim.name, "what": part.what, "reason": part.evidence.reason}
        for claim in claims
        for part in claim.parts
        if isinstance(part.evidence, Untestable)
    ]


def jobs_as_json(states: Sequence[JobState], errors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each job, with what is left of it: trials of a run, 1 of a document that is still to be made."""
    return [
        {
            "name": one.job.name,
            "command": one.job.command,
            "claims": list(one.job.claims),
            "arms": list(one.job.arms) if isinstance(one.job, RunJob) else [],
            "repeats": one.job.repeats if isinstance(one.job, RunJob) else None,
            "state": one.progressed.value,
            "left": one.left,
            "of": one.of,
            "estimate_seconds": one.seconds,
            "reason": one.reason,
            "error": errors.get(one.job.name, ""),
        }
        for one in states
    ]


def changes_as_json(changes: Sequence[ClaimChange]) -> list[dict[str, Any]]:
    """Each claim, by the committed result and by the fresh one."""
    return [
        {
            "name": one.claim.name,
            "differs": one.differs,
            "verdicts": {
                origin.value: {"committed": verdict.value, "fresh": one.fresh.verdicts[origin].value}
                for origin, verdict in one.committed.verdicts.items()
            },
            "parts": [_part(part) for part in one.parts],
            "unlike": list(one.unlike),
        }
        for one in changes
    ]


def _part(one: PartChange) -> dict[str, Any]:
    return {
        "what": one.committed.part.what,
        "origin": one.committed.part.evidence.origin.value,
        "change": one.change.value,
        "unit": one.committed.part.unit.value,
        "committed": _figure(one.committed),
        "fresh": _figure(one.fresh),
        "readings": [{"of": of, **_difference(found)} for of, found in one.readings],
        "reason": one.reason,
    }


def _figure(one: JudgedPart) -> dict[str, Any]:
    figure = one.figure
    return {
        "result": one.result.value,
        "estimate": figure.estimate if figure else None,
        "low": figure.low if figure else None,
        "high": figure.high if figure else None,
        "boots": figure.boots if figure else None,
    }


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "estimate": one.estimate,
        "low": one.interval.low if one.interval else None,
        "high": one.interval.high if one.interval else None,
        "significance": one.significance.value,
        "p_adjusted": one.p_adjusted,
        "detectable": one.detectable,
        "boots": one.n,
        "paired": one.paired,
    }
