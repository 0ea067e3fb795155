"""A claim of the talk, in our words: what it is judged by, and what would change that."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from orchestrator.claims.evidence import Evidence
from orchestrator.claims.figure import Unit, in_unit
from orchestrator.registry import Registry


@dataclass(frozen=True)
class Criterion:
    """The bounds of what is claimed; at least one of them."""

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a criterion without a bound is met by everything")

    def words(self, unit: Unit) -> str:
        """`at least 2, at most 2.05 MiB per GiB`: bounds are exact, so without zeros at their end."""
        if self.at_least == self.at_most and self.at_least is not None:
            return f"exactly {_exact(self.at_least, unit)}"
        ends = (("at least", self.at_least), ("at most", self.at_most))
        return ", ".join(f"{word} {_exact(end, unit)}" for word, end in ends if end is not None)


def _exact(value: float, unit: Unit) -> str:
    return re.sub(r"(\.\d*?)0+(?!\d)", r"\1", in_unit(value, unit)).replace(". ", " ").removesuffix(".")


@dataclass(frozen=True)
class Part:
    """One thing that a claim says, with its evidence; `criterion` is None where none can be had."""

    what: str
    evidence: Evidence
    criterion: Criterion | None = None
    unit: Unit = Unit.COUNT


@dataclass(frozen=True)
class Claim:
    """`place` is its place in the talk. `changes` says what would turn it, and what was not looked at."""

    name: str
    place: int
    sentence: str
    parts: tuple[Part, ...]
    changes: str

    @property
    def commands(self) -> tuple[str, ...]:
        """What makes its evidence again."""
        sources = (source for part in self.parts for source in part.evidence.sources)
        return tuple(dict.fromkeys(source.command for source in sources))


CLAIMS: Final[Registry[Claim]] = Registry("claim", "orchestrator.claims.talk")


def claim(name: str, place: int, sentence: str, parts: Iterable[Part], changes: str) -> Claim:
    """File a claim under its name."""
    return CLAIMS.register(name)(Claim(name, place, sentence, tuple(parts), changes))


def claim_named(name: str) -> Claim:
    """Raises BadInputError, with a suggestion, where there is none."""
    return CLAIMS[name]


def every_claim() -> list[Claim]:
    """All of them, in the order of the talk."""
    return sorted((one for _, one in CLAIMS), key=lambda one: one.place)
