"""What holds of a claim: computed from the figures of its parts and their criteria, origin by origin.

A part is met if the whole interval (or range) of its figure is within the criterion, not met if all of it is
outside, and else undecided. What was measured, predicted and modelled is judged by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.claims.base import Claim, Criterion, Part
from orchestrator.claims.committed import Committed
from orchestrator.claims.figure import Figure, NoFigureError
from orchestrator.observation import Origin


class PartResult(StrEnum):
    """What may be said of a part."""

    MET = "met"
    NOT_MET = "not met"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested yet"
    CANNOT = "cannot be tested here"


class Verdict(StrEnum):
    """What may be said of a claim, by evidence of one origin."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    DOES_NOT = "does not hold"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested yet"
    CANNOT = "cannot be tested here"


@dataclass(frozen=True)
class JudgedPart:
    """A part with its figure, or the reason why there is none."""

    part: Part
    result: PartResult
    figure: Figure | None = None
    reason: str = ""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and its parts. `verdicts` has those origins only of which there is a part."""

    claim: Claim
    parts: tuple[JudgedPart, ...]
    verdicts: dict[Origin, Verdict]
    conditions: tuple[str, ...]


def judge(claim: Claim, committed: Committed) -> JudgedClaim:
    """Raises BadInputError where a committed result is not what the claim refers to."""
    parts = tuple(_judged(part, committed) for part in claim.parts)
    origins = [origin for origin in Origin if any(one.part.evidence.origin is origin for one in parts)]
    return JudgedClaim(
        claim=claim,
        parts=parts,
        verdicts={
            origin: verdict_of(one.result for one in parts if one.part.evidence.origin is origin)
            for origin in origins
        },
        conditions=_conditions(parts, committed),
    )


def verdict_of(results: Iterable[PartResult]) -> Verdict:
    """What parts of one origin say together: more than they do, never."""
    found = set(results)
    tested = found - {PartResult.NOT_TESTED, PartResult.CANNOT}
    if not tested:
        return Verdict.CANNOT if found == {PartResult.CANNOT} else Verdict.NOT_TESTED
    if found == {PartResult.MET}:
        return Verdict.HOLDS
    if PartResult.MET in found:
        return Verdict.IN_PART
    if found == {PartResult.NOT_MET}:
        return Verdict.DOES_NOT
    return Verdict.UNDECIDED


def result_of(figure: Figure, criterion: Criterion) -> PartResult:
    """Whether all of a figure's interval is within the bounds, or all of it outside."""
    if figure.low is None or figure.high is None:
        return PartResult.UNDECIDED
    least = float("-inf") if criterion.at_least is None else criterion.at_least
    most = float("inf") if criterion.at_most is None else criterion.at_most
    if least <= figure.low and figure.high <= most:
        return PartResult.MET
    if figure.high < least or most < figure.low:
        return PartResult.NOT_MET
    return PartResult.UNDECIDED


def _judged(part: Part, committed: Committed) -> JudgedPart:
    try:
        figure = part.evidence.figure(committed)
    except NoFigureError as error:
        result = PartResult.CANNOT if error.cannot else PartResult.NOT_TESTED
        return JudgedPart(part, result, reason=error.reason)
    if part.criterion is None:
        raise ValueError(f"{part.what}: a figure, and no criterion")
    return JudgedPart(part, result_of(figure, part.criterion), figure)


def _conditions(parts: Sequence[JudgedPart], committed: Committed) -> tuple[str, ...]:
    """Of each result that there is a figure of: `pmd: guest Linux 6.12 under TCG`."""
    arms: dict[str, list[str]] = {}
    for source in dict.fromkeys(one for part in parts if part.figure for one in part.part.evidence.sources):
        arms.setdefault(source.result, []).extend([source.arm] if source.arm else [])
    words = {
        result: committed.run(result).conditions(tuple(of)) if of else committed.model_conditions(result)
        for result, of in arms.items()
    }
    return tuple(f"{result}: {what}" for result, what in words.items())
