"""The difference between two arms, metric by metric, with what may be said of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

import numpy as np

from orchestrator.stats import tests
from orchestrator.stats.boots import averaged
from orchestrator.stats.designs import Design, design_of
from orchestrator.stats.interval import Interval

LEVEL: Final = 0.05  # chance of even one false "significant" among the metrics of two arms


class Significance(StrEnum):
    """What may be said of a difference."""

    SIGNIFICANT = "significant"
    NOT_SIGNIFICANT = "not significant"
    IDENTICAL = "identical in all trials"
    TOO_FEW_BOOTS = "too few boots"


@dataclass(frozen=True)
class Sample:
    """A metric in the trials of two arms; when `paired`, each value of one belongs to that of the other.

    `boots` names the boot of each trial of the first and of the second, and where they are pairs the unit of
    each pair, twice (`boots.connected`); without it each trial, or pair, is one of its own. `hosts` names the
    host of each trial where they are not paired; each host has trials of both arms. `resolution` is one unit
    of the metric, see `tests.from_pairs`.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    paired: bool
    resolution: float = 0.0
    boots: tuple[tuple[Hashable, ...], tuple[Hashable, ...]] | None = None
    hosts: tuple[tuple[Hashable, ...], tuple[Hashable, ...]] | None = None

    @cached_property
    def design(self) -> Design:
        """What is to be compared: one value for each boot."""
        both = (np.asarray(self.first, dtype=np.float64), np.asarray(self.second, dtype=np.float64))
        if self.boots:
            both = averaged(both[0], self.boots[0]), averaged(both[1], self.boots[1])
        return design_of(*both, paired=self.paired, hosts=self._hosts_of_boots)

    @property
    def _hosts_of_boots(self) -> tuple[tuple[Hashable, ...], tuple[Hashable, ...]] | None:
        if not self.hosts or not self.boots:
            return self.hosts
        first, second = (
            tuple(dict(zip(boots, hosts, strict=True)).values())
            for boots, hosts in zip(self.boots, self.hosts, strict=True)
        )
        return first, second

    @property
    def enough(self) -> bool:
        """Whether there are boots enough for an interval."""
        return self.design.enough

    @property
    def same(self) -> bool:
        """Whether no trial differs from one that it may be compared with."""
        if self.paired:
            return self.first == self.second or len({*self.first, *self.second}) == 1
        on_host: dict[Hashable, set[float]] = {}
        for number, values in enumerate((self.first, self.second)):
            hosts = self.hosts[number] if self.hosts else ("",) * len(values)
            for host, value in zip(hosts, values, strict=True):
                on_host.setdefault(host, set()).add(value)
        return all(len(there) == 1 for there in on_host.values())


@dataclass(frozen=True)
class LostCounts:
    """How many boots of each arm ended in a way, of how many that were tried; with `hosts` on each of several
    (in the order of the other fields, which then are the sums)."""

    first: int
    of_first: int
    second: int
    of_second: int
    hosts: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def by_host(self) -> tuple[tuple[int, int, int, int], ...]:
        """The same on each host, where both arms were tried."""
        whole = (self.first, self.of_first, self.second, self.of_second)
        return tuple(one for one in self.hosts or (whole,) if one[1] and one[3])

    @property
    def same(self) -> bool:
        """Whether on each host all boots of both did, or none: no host says anything."""
        return all(one + other in {0, of_one + of_other} for one, of_one, other, of_other in self.by_host)


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`, of boots: the mean of pairs, or the difference of means; of counts, of shares.

    `relative` is to the mean of the first. `effect` is in standard deviations: of the pairs' differences
    (Cohen's d_z), or Hedges' g. `detectable` is a difference that is found in four of five such experiments,
    on average over what their spread might be estimated to be. None where there is none: too few boots, no
    spread, nothing to relate to.
    """

    n: int  # boots, or pairs of boots, of the arm that has fewer
    paired: bool
    estimate: float
    relative: float | None
    significance: Significance
    interval: Interval | None = None
    effect: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    trials: int = 0  # behind `n`: pairs of trials, or trials of the arm that has fewer


def differences(
    samples: Mapping[str, Sample | LostCounts], *, level: float = LEVEL, seed: int = 1
) -> dict[str, Difference]:
    """Compare two arms in several metrics, of which at most a share `level` of experiments calls any
    different that is not.

    Metrics that are the same in all trials are not tested, and so do not count as one more chance to err;
    nor do counts that could not be called different. Samples must not be empty, and those that are paired
    must be of one length.
    """
    found = {name: _described(sample) for name, sample in samples.items()}
    tested = [name for name, one in found.items() if one.significance is Significance.NOT_SIGNIFICANT]
    if not tested:
        return found
    raw = np.array([_p(samples[name]) for name in tested])
    for name, p, adjusted in zip(tested, raw, tests.holm(raw), strict=True):
        found[name] = replace(
            found[name],
            significance=Significance.SIGNIFICANT if adjusted <= level else Significance.NOT_SIGNIFICANT,
            p=float(p),
            p_adjusted=float(adjusted),
        )
        sample = samples[name]
        if isinstance(sample, Sample):
            # Each counts as if it had to pass Holm's hardest step: so much is promised of every metric.
            found[name] = _with_size(found[name], sample, level / len(tested), seed)
    return found


def _p(sample: Sample | LostCounts) -> float:
    if isinstance(sample, LostCounts):
        return tests.p_of_counts(*sample.by_host)
    return float(tests.p_values(sample.design.estimate(sample.resolution)))


def _with_size(found: Difference, sample: Sample, level: float, seed: int) -> Difference:
    """With how large it is, and how large it would have had to be."""
    design = sample.design
    estimate = design.estimate(sample.resolution)
    freedom = float(estimate.freedom)
    return replace(
        found,
        interval=design.interval(freedom, seed),
        effect=design.effect(),
        detectable=tests.detectable(float(estimate.error), freedom, level),
    )


def _described(sample: Sample | LostCounts) -> Difference:
    """What holds without a test. NOT_SIGNIFICANT stands for one that is to be tested."""
    if isinstance(sample, LostCounts):
        return _of_counts(sample)
    design = sample.design
    base = design.base
    estimate = 0.0 if sample.same else design.difference
    to_test = Significance.IDENTICAL if sample.same else Significance.NOT_SIGNIFICANT
    return Difference(
        n=design.units,
        trials=min(len(sample.first), len(sample.second)),
        paired=sample.paired,
        estimate=estimate,
        relative=estimate / abs(base) if base else None,
        significance=to_test if design.enough else Significance.TOO_FEW_BOOTS,
    )


def _of_counts(counts: LostCounts) -> Difference:
    n = min(counts.of_first, counts.of_second)
    between = [np.array(other / of_other - one / of_one) for one, of_one, other, of_other in counts.by_host]
    tried = [(of_one, of_other) for _, of_one, _, of_other in counts.by_host]
    return Difference(
        n=n,
        trials=n,
        paired=False,
        estimate=float(tests.weighted(between, tests.weights(tried))) if tried else 0.0,
        relative=None,
        significance=Significance.IDENTICAL if counts.same or not n else Significance.NOT_SIGNIFICANT,
    )
