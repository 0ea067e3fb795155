"""How the boots of two arms belong together: in pairs, not at all, or by the host that they ran on.

A host is a block: what its guests share (processor, microcode, other work on it) is in all its boots. So
boots are compared with those of the same host only, and the differences that hosts show are averaged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.stats import interval, tests
from orchestrator.stats.boots import FEWEST
from orchestrator.stats.interval import Interval
from orchestrator.stats.tests import Estimate, Floats

Hosts = tuple[Sequence[Hashable], Sequence[Hashable]]


class Design(ABC):
    """Boots of two arms, and what may be computed of them. What needs a spread takes `enough` boots."""

    first: Floats
    second: Floats

    @property
    def units(self) -> int:
        """Boots of the arm that has fewer, or pairs of boots."""
        return min(len(self.first), len(self.second))

    @property
    def enough(self) -> bool:
        """Whether there are boots enough for an interval."""
        return self.units >= FEWEST

    @property
    def base(self) -> float:
        """The mean of the first arm: what a difference is related to."""
        return float(self.first.mean())

    @property
    @abstractmethod
    def difference(self) -> float:
        """How much more the second arm has."""

    @abstractmethod
    def estimate(self, resolution: float) -> Estimate:
        """For the test. `resolution` is one unit of the metric: no spread is taken to be smaller."""

    @abstractmethod
    def interval(self, freedom: float, seed: int) -> Interval:
        """Where the true difference is; `freedom` is that of `estimate`."""

    @abstractmethod
    def effect(self) -> float | None:
        """The difference in standard deviations; None without any spread."""


@dataclass(frozen=True)
class Pairs(Design):
    """Each boot of one arm with its own of the other."""

    first: Floats
    second: Floats

    @property
    def difference(self) -> float:
        return float((self.second - self.first).mean())

    def estimate(self, resolution: float) -> Estimate:
        return tests.from_pairs(self.second - self.first, resolution)

    def interval(self, freedom: float, seed: int) -> Interval:
        del freedom
        return interval.of_pairs(self.second - self.first, seed)

    def effect(self) -> float | None:
        spread = float((self.second - self.first).std(ddof=1))
        return float(self.second.mean() - self.first.mean()) / spread if spread else None


@dataclass(frozen=True)
class Groups(Design):
    """Boots of one host, none of which belongs to another."""

    first: Floats
    second: Floats

    @property
    def difference(self) -> float:
        return float(self.second.mean()) - self.base

    def estimate(self, resolution: float) -> Estimate:
        return tests.from_groups(self.first, self.second, resolution)

    def interval(self, freedom: float, seed: int) -> Interval:
        return interval.of_groups(self.first, self.second, freedom, seed)

    def effect(self) -> float | None:
        n, m = len(self.first), len(self.second)
        squares = (n - 1) * self.first.var(ddof=1) + (m - 1) * self.second.var(ddof=1)
        return _hedges(self.difference, float(squares), n + m - 2)


@dataclass(frozen=True)
class Blocks(Design):
    """Boots of several hosts, each of which has some of both arms; `hosts` names that of each boot."""

    first: Floats
    second: Floats
    hosts: Hosts

    @cached_property
    def cells(self) -> list[tuple[Floats, Floats]]:
        """The boots of both arms on each host."""
        of_first, of_second = map(np.array, self.hosts)
        return [
            (self.first[of_first == host], self.second[of_second == host])
            for host in dict.fromkeys(self.hosts[0])
        ]

    @property
    def base(self) -> float:
        return float(tests.weighted([first.mean() for first, _ in self.cells], self._weights))

    @property
    def difference(self) -> float:
        between = [second.mean() - first.mean() for first, second in self.cells]
        return float(tests.weighted(between, self._weights))

    @property
    def _weights(self) -> Floats:
        return tests.weights([(len(first), len(second)) for first, second in self.cells])

    def estimate(self, resolution: float) -> Estimate:
        return tests.from_strata(self.cells, resolution)

    @property
    def enough(self) -> bool:
        """The spread within hosts shall be known as well as that of the fewest boots of one host."""
        return self.units - len(self.cells) >= FEWEST - 1

    def interval(self, freedom: float, seed: int) -> Interval:
        """Of the boots less what is their host's, spread about the mean of their arm as widely as the error
        of the estimate says: the bootstrap knows of no hosts, and would take the arms for balanced. With less
        freedom than the fewest boots of one host have, Student's: no bootstrap has so wide a tail."""
        free = self._free_of_hosts()
        plain = float(tests.from_groups(*free).error)
        error = float(self.estimate(0.0).error)
        if freedom < FEWEST - 1:
            return interval.of_error(self.difference, error, freedom)
        wider = error / plain if error and plain else 1.0
        spread = [one.mean() + wider * (one - one.mean()) for one in free]
        return interval.of_groups(spread[0], spread[1], freedom, seed)

    def _free_of_hosts(self) -> tuple[Floats, Floats]:
        """The boots of both arms less the effect of their host, as least squares find it."""
        found: tuple[list[Floats], list[Floats]] = ([], [])
        for first, second in self.cells:
            n, m = len(first), len(second)
            of_host = (first.sum() + second.sum() - m * self.difference) / (n + m)
            found[0].append(first - of_host)
            found[1].append(second - of_host)
        return np.concatenate(found[0]), np.concatenate(found[1])

    def effect(self) -> float | None:
        arrays = [values for cell in self.cells for values in cell]
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in arrays)
        return _hedges(self.difference, squares, sum(len(values) - 1 for values in arrays))


def design_of(first: Floats, second: Floats, *, paired: bool, hosts: Hosts | None = None) -> Design:
    """The design of boots; of pairs, hosts do not matter, as both of a pair are of one.

    Where hosts have so few boots of an arm that the spread within hosts cannot be told, but hosts are enough,
    their differences are the pairs.
    """
    if paired:
        return Pairs(first, second)
    if hosts is None or len({*hosts[0], *hosts[1]}) < 2:
        return Groups(first, second)
    blocks = Blocks(first, second, hosts)
    if not blocks.enough and len(blocks.cells) >= FEWEST:
        means = [[float(values.mean()) for values in cell] for cell in blocks.cells]
        return Pairs(*np.array(means).T)
    return blocks


def _hedges(difference: float, squares: float, freedom: int) -> float | None:
    """Hedges' g (1981): in standard deviations of boots, and no more of them than few boots let think."""
    spread = math.sqrt(squares / freedom) if freedom > 0 else 0.0
    return (1 - 3 / (4 * freedom - 1)) * difference / spread if spread else None
