"""Evidence made of evidence: ratios, differences, and other units."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from orchestrator.claims.committed import Committed
from orchestrator.claims.evidence import Sampled, Source
from orchestrator.claims.figure import NoFigureError, Sample
from orchestrator.observation import Origin


@dataclass(frozen=True)
class _OfTwo(Sampled):
    first: Sampled
    second: Sampled

    @property
    def origin(self) -> Origin:
        return weakest(self.first.origin, self.second.origin)

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(dict.fromkeys((*self.first.sources, *self.second.sources)))


@dataclass(frozen=True)
class Ratio(_OfTwo):
    """The first, as a share of the second: boot by boot, or of ranges the widest."""

    def sample(self, committed: Committed) -> Sample:
        second = self.second.sample(committed)
        if 0 in second.values.values():
            raise NoFigureError("what it would be a share of is 0")
        return self.first.sample(committed).combined(second, operator.truediv)


@dataclass(frozen=True)
class AtSameCosts(_OfTwo):
    """The ratio of two figures of a model at the low end, the typical one and the high end of its costs."""

    def sample(self, committed: Committed) -> Sample:
        found = self.first.sample(committed)
        return found.combined(self.second.sample(committed), operator.truediv, ends=True)


@dataclass(frozen=True)
class Less(_OfTwo):
    """The first less the second, likewise."""

    def sample(self, committed: Committed) -> Sample:
        return self.first.sample(committed).combined(self.second.sample(committed), operator.sub)


@dataclass(frozen=True)
class Times(Sampled):
    """Evidence times a constant, such as the bytes of a table."""

    of: Sampled
    factor: float

    @property
    def origin(self) -> Origin:
        return self.of.origin

    @property
    def sources(self) -> tuple[Source, ...]:
        return self.of.sources

    def sample(self, committed: Committed) -> Sample:
        found = self.of.sample(committed)
        return Sample({key: value * self.factor for key, value in found.values.items()}, found.of_boots)


def weakest(*origins: Origin) -> Origin:
    """The origin of what is computed from several: a model's word makes all of it modelled."""
    order = list(Origin)
    return max(origins, key=order.index)
