"""What fresh results say otherwise than committed ones, part by part, and whether that is more than chance.

Boots are the unit. All readings of all claims are one family: the chance of even one false "differs" among
them is at most 5 % (docs/statistics.md). A model gives the same answer again, or its code has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator.claims import Claim, Committed, JudgedClaim, JudgedPart, judge
from orchestrator.claims.evidence import Evidence, Sampled
from orchestrator.claims.figure import NoFigureError, Sample, Unit
from orchestrator.claims.of_runs import Compared
from orchestrator.errors import BadInputError
from orchestrator.observation import Origin
from orchestrator.stats import Difference, Significance, differences
from orchestrator.stats import Sample as TwoSamples
from orchestrator.summary import METRIC, resolution_of
from orchestrator.units import PAGE_BYTES
from orchestrator.verdict.comparability import refuse_unlike

# One unit of what is counted: a smaller spread is not taken for a smaller error. Shares and ratios have none.
_RESOLUTION: Final = {Unit.COUNT: 1.0, Unit.BYTES: float(PAGE_BYTES)}


class Change(StrEnum):
    """What may be said of a part, of committed and fresh results."""

    DIFFERS = "differs"
    NOT_DIFFERENT = "no difference found"
    IDENTICAL = "identical"
    TOO_FEW_BOOTS = "too few boots to say"
    NOT_RUN = "no fresh result"
    NOT_COMMITTED = "no committed result"
    CANNOT = "cannot be tested here"


@dataclass(frozen=True)
class PartChange:
    """A part by both results. `readings` are fresh less committed, by what was read: the figure itself, or
    each of two arms where it is their difference. `reason` says why there is no fresh figure."""

    committed: JudgedPart
    fresh: JudgedPart
    change: Change
    readings: tuple[tuple[str, Difference], ...] = ()

    @property
    def reason(self) -> str:
        return self.fresh.reason or self.committed.reason


@dataclass(frozen=True)
class ClaimChange:
    """A claim by both results. `unlike` is what else the two differ in, such as a kernel's release."""

    claim: Claim
    committed: JudgedClaim
    fresh: JudgedClaim
    parts: tuple[PartChange, ...]
    unlike: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether any part does by more than chance."""
        return any(part.change is Change.DIFFERS for part in self.parts)


def changes_of(claims: Iterable[Claim], committed: Committed, fresh: Committed) -> list[ClaimChange]:
    """Both results of each claim. Raises BadInputError where one is not what a claim refers to."""
    judged = [(judge(claim, committed), judge(claim, fresh)) for claim in claims]
    pairs = [(one, other) for two in judged for one, other in zip(two[0].parts, two[1].parts, strict=True)]
    samples: dict[str, TwoSamples] = {}
    read: list[list[tuple[str, str]]] = []  # of each part: what is read, and its key in `samples`
    for number, (one, _) in enumerate(pairs):
        found = _read_twice(one, committed, fresh)
        read.append([(what, f"{number} {what}") for what in found])
        samples |= {f"{number} {what}": two for what, two in found.items()}
    different = differences(samples)
    compared = [
        _part(one, other, [(what, different[key]) for what, key in keys])
        for (one, other), keys in zip(pairs, read, strict=True)
    ]
    changes = []
    for before, now in judged:
        own, compared = compared[: len(before.parts)], compared[len(before.parts) :]
        changes.append(ClaimChange(before.claim, before, now, tuple(own), _unlike(now, committed, fresh)))
    return changes


def _part(one: JudgedPart, other: JudgedPart, found: Sequence[tuple[str, Difference]]) -> PartChange:
    return PartChange(one, other, _change(one, other, [difference for _, difference in found]), tuple(found))


def _change(one: JudgedPart, other: JudgedPart, found: Sequence[Difference]) -> Change:
    if other.figure is None:
        cannot = one.figure is None and one.result.value == Change.CANNOT.value
        return Change.CANNOT if cannot else Change.NOT_RUN
    if one.figure is None:
        return Change.NOT_COMMITTED
    if one.part.evidence.origin is Origin.MODELLED and other.figure.boots is None:
        same = (one.figure.estimate, one.figure.low, one.figure.high) == (
            other.figure.estimate,
            other.figure.low,
            other.figure.high,
        )
        return Change.IDENTICAL if same else Change.DIFFERS
    said = {difference.significance for difference in found}
    if Significance.SIGNIFICANT in said:
        return Change.DIFFERS
    if Significance.TOO_FEW_BOOTS in said or not said:
        return Change.TOO_FEW_BOOTS
    return Change.NOT_DIFFERENT if Significance.NOT_SIGNIFICANT in said else Change.IDENTICAL


def _read_twice(part: JudgedPart, committed: Committed, fresh: Committed) -> dict[str, TwoSamples]:
    """What is read of boots for a part, in both results; nothing where one has none."""
    try:
        one, other = (_read(part.part.evidence, results) for results in (committed, fresh))
    except NoFigureError:
        return {}
    found = {}
    for what, first in one.items():
        second = other[what]
        if first.of_boots and second.of_boots:
            resolution = _resolution(part, what, committed)
            found[what] = _two(first, second, resolution)
    return found


def _read(evidence: Evidence, results: Committed) -> dict[str, Sample]:
    """Values by boot. Of a difference between two arms those of each, which may be of other boots."""
    if isinstance(evidence, Compared):
        run = results.run(evidence.run)
        return {
            arm: run.by_boot(arm, lambda trial: trial.number(evidence.metric))
            for arm in (evidence.base, evidence.arm)
        }
    return {"": evidence.sample(results)} if isinstance(evidence, Sampled) else {}


def _two(first: Sample, second: Sample, resolution: float) -> TwoSamples:
    """Boot against boot where the fresh trials began from boots of the same names: they may be the same."""
    paired = second.values.keys() <= first.values.keys()
    before = [first.values[boot] for boot in second.values] if paired else list(first.values.values())
    return TwoSamples(tuple(before), tuple(second.values.values()), paired, resolution)


def _resolution(part: JudgedPart, arm: str, committed: Committed) -> float:
    evidence = part.part.evidence
    if isinstance(evidence, Compared):
        figures = committed.run(evidence.run).figures.arm(arm)
        return resolution_of(METRIC[evidence.metric], figures.does if figures else {})
    return _RESOLUTION.get(part.part.unit, 0.0)


def _unlike(judged: JudgedClaim, committed: Committed, fresh: Committed) -> tuple[str, ...]:
    """What else the runs differ in, that fresh figures are of."""
    sources = [source for part in judged.parts if part.figure for source in part.part.evidence.sources]
    words = []
    for name in dict.fromkeys(source.result for source in sources if source.arm):
        try:
            before, now = committed.run(name).figures, fresh.run(name).figures
            _, unlike, _ = refuse_unlike(before, now, (), force=True)
        except (NoFigureError, BadInputError):
            continue  # no arm in common: then there is no figure to compare, either
        words += [f"{name}: {one}" for one in unlike]
    return tuple(words)
