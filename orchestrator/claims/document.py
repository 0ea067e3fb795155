"""A judged claim as words and as JSON: the same for the terminal, docs/claims.md and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.claims.figure import figure_words, spread_words
from orchestrator.claims.judge import JudgedClaim, JudgedPart
from orchestrator.observation import Origin


@dataclass(frozen=True)
class PartRow:
    """A part as a row of a table; `criterion` and `of` are empty where there is no figure."""

    what: str
    origin: str
    found: str
    criterion: str
    of: str
    result: str


def verdict_words(judged: JudgedClaim, origin: Origin) -> str:
    """What may be said by evidence of that origin; empty where no part has any."""
    found = judged.verdicts.get(origin)
    return found.value if found else ""


def part_rows(judged: JudgedClaim) -> list[PartRow]:
    """The parts of a claim, in its order."""
    return [_row(one) for one in judged.parts]


def claims_as_json(claims: Sequence[JudgedClaim]) -> list[dict[str, Any]]:
    """As `orchestrator claims --json` has them."""
    return [
        {
            "name": one.claim.name,
            "sentence": one.claim.sentence,
            "verdicts": {origin.value: verdict.value for origin, verdict in one.verdicts.items()},
            "parts": [_part_as_json(part) for part in one.parts],
            "commands": list(one.claim.commands),
            "conditions": list(one.conditions),
            "changes": one.claim.changes,
        }
        for one in claims
    ]


def _row(one: JudgedPart) -> PartRow:
    part, figure = one.part, one.figure
    return PartRow(
        what=part.what,
        origin=part.evidence.origin.value,
        found=figure_words(figure, part.unit) if figure else one.reason,
        criterion=part.criterion.words(part.unit) if figure and part.criterion else "",
        of=spread_words(figure) if figure else "",
        result=one.result.value,
    )


def _part_as_json(one: JudgedPart) -> dict[str, Any]:
    part, figure, criterion = one.part, one.figure, one.part.criterion
    return {
        "what": part.what,
        "origin": part.evidence.origin.value,
        "result": one.result.value,
        "unit": part.unit.value,
        "estimate": figure.estimate if figure else None,
        "low": figure.low if figure else None,
        "high": figure.high if figure else None,
        "spread": figure.spread.value if figure else None,
        "boots": figure.boots if figure else None,
        "at_least": criterion.at_least if criterion else None,
        "at_most": criterion.at_most if criterion else None,
        "results": sorted({source.result for source in part.evidence.sources}),
        "reason": one.reason,
    }
