"""Hosts are blocks: they raise no false alarm, would raise many without, and hide nothing that is there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats as scipy_stats
from test_stats import METRICS, RUNS, at_most

from orchestrator.stats import FEWEST, LEVEL, LostCounts, Sample, Significance, differences
from orchestrator.stats import interval as intervals
from orchestrator.stats import tests as significance
from orchestrator.stats.designs import Blocks, Groups, Pairs, design_of
from orchestrator.stats.tests import Floats

# Boots of the first and of the second arm on each host.
Layout = tuple[tuple[int, int], ...]
UNBALANCED: Layout = ((8, 2), (2, 8))
HOST_EFFECT = 20.0  # in standard deviations of boots


def simulated(
    rng: np.random.Generator, layout: Layout, *, effect: float = 0.0, spread: tuple[float, ...] = (1.0, 1.0)
) -> list[tuple[Floats, Floats]]:
    """Many runs of metrics, hosts of levels of their own; `effect` is in one metric of the second arm."""
    cells = []
    for number, ((n, m), of_host) in enumerate(zip(layout, spread, strict=True)):
        level = HOST_EFFECT * number
        first, second = (rng.normal(level, of_host, (RUNS, METRICS, boots)) for boots in (n, m))
        second[:, 0] += effect
        cells.append((first, second))
    return cells


def found(estimate: significance.Estimate) -> npt.NDArray[np.bool_]:
    """Whether each metric of each run is called different."""
    return significance.holm(significance.p_values(estimate)) <= LEVEL


def without_blocks(cells: list[tuple[Floats, Floats]]) -> significance.Estimate:
    """The same boots, hosts forgotten."""
    first, second = (np.concatenate(arm, axis=-1) for arm in zip(*cells, strict=True))
    return significance.from_groups(first, second)


@pytest.mark.parametrize(
    ("layout", "forgotten"),
    [
        (UNBALANCED, 0.9),
        (((18, 4), (5, 16)), 0.9),
        # Few, or balanced, or nearly: forgotten hosts only hide what there is, or not even that.
        (((10, 5), (4, 8)), 0.0),
        (((6, 1), (2, 6)), 0.0),
        (((3, 3), (3, 3)), 0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", [(1.0, 1.0), (1.0, 3.0)], ids=str)
def test_identical_arms_on_two_hosts_are_called_different_no_more_often_than_stated(
    layout: Layout, forgotten: float, spread: tuple[float, ...]
) -> None:
    """The same runs with hosts forgotten nearly all are, where many trials are unbalanced."""
    cells = simulated(np.random.default_rng([1, *layout[0], *layout[1]]), layout, spread=spread)
    share = float(found(significance.from_strata(cells)).any(axis=-1).mean())
    bound = at_most(LEVEL)
    assert bound == pytest.approx(0.077), (
        "of 5 %, exceeded in 1,000 runs by chance once in ten thousand tests"
    )
    assert share <= bound
    assert float(found(without_blocks(cells)).any(axis=-1).mean()) >= forgotten


def test_the_level_is_used() -> None:
    """A test that never calls anything would pass the one above."""
    cells = simulated(np.random.default_rng(2), UNBALANCED)
    assert float(found(significance.from_strata(cells)).any(axis=-1).mean()) >= LEVEL / 2


def test_a_difference_that_is_smaller_than_that_of_hosts_is_found() -> None:
    """A fifth of what hosts are apart, of arms that are balanced over them, and of arms that are not."""
    for layout in (UNBALANCED, ((5, 5), (5, 5))):
        cells = simulated(np.random.default_rng(3), layout, effect=HOST_EFFECT / 5)
        called = found(significance.from_strata(cells))
        assert float(called[:, 0].mean()) > 0.95
        assert float(called[:, 1:].any(axis=-1).mean()) <= at_most(LEVEL)
    # Of arms that are balanced, the spread between hosts hides it.
    assert float(found(without_blocks(cells))[:, 0].mean()) < 0.05
    # Of the others, what is found without blocks is that of hosts: twelve standard deviations, not four.
    cells = simulated(np.random.default_rng(3), UNBALANCED, effect=HOST_EFFECT / 5)
    assert float(without_blocks(cells).difference[:, 0].mean()) > 3 * HOST_EFFECT / 5
    assert float(significance.from_strata(cells).difference[:, 0].mean()) == pytest.approx(4.0, abs=0.05)


def test_what_is_detectable_within_hosts_is_found_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    one = significance.from_strata(simulated(rng, UNBALANCED))
    factors = {
        round(float(freedom)): significance.detectable(1.0, round(float(freedom)), LEVEL / METRICS)
        for freedom in one.freedom[:, 0]
    }
    said = np.array([factors[round(float(freedom))] for freedom in one.freedom[:, 0]]) * one.error[:, 0]
    cells = simulated(rng, UNBALANCED)
    for _, second in cells:
        second[:, 0] += said[:, None]
    called = found(significance.from_strata(cells))[:, 0]
    assert float(called.mean()) == pytest.approx(significance.POWER, abs=0.04)


def boots(
    rng: np.random.Generator, layout: Layout, *, effect: float = 0.0, level: float = HOST_EFFECT
) -> tuple[Floats, Floats, tuple[list[str], list[str]]]:
    """One metric of one run, and the host of each boot."""
    arms: tuple[list[float], list[float]] = ([], [])
    hosts: tuple[list[str], list[str]] = ([], [])
    for number, counts in enumerate(layout):
        for arm, count in enumerate(counts):
            arms[arm].extend(rng.normal(level * number + effect * arm, 1, count))
            hosts[arm].extend([f"node{number}"] * count)
    return np.array(arms[0]), np.array(arms[1]), hosts


def test_the_difference_is_that_of_least_squares() -> None:
    """With an effect for each host, fitted by numpy; and with one host it is Welch's, to the last bit."""
    first, second, hosts = boots(np.random.default_rng(5), ((8, 2), (2, 8), (3, 1)), effect=2.0)
    design = design_of(first, second, paired=False, hosts=hosts)
    assert isinstance(design, Blocks)
    names = ["node0", "node1", "node2"]
    rows = [[float(arm), *(host == name for name in names)] for arm in (0, 1) for host in hosts[arm]]
    fitted, *_ = np.linalg.lstsq(np.array(rows, dtype=float), np.concatenate([first, second]), rcond=None)
    assert design.difference == pytest.approx(fitted[0])
    free = design._free_of_hosts()
    assert free[1].mean() - free[0].mean() == pytest.approx(fitted[0])
    one = design_of(first, second, paired=False, hosts=(["a"] * len(first), ["a"] * len(second)))
    assert isinstance(one, Groups)
    stratified = significance.from_strata([(first, second)])
    welch = significance.from_groups(first, second)
    assert float(stratified.difference) == float(welch.difference)
    assert float(stratified.error) >= float(welch.error)


@pytest.mark.slow
def test_intervals_within_hosts_cover_what_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 199)
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(60):
        first, second, hosts = boots(rng, UNBALANCED, effect=3.0)
        design = design_of(first, second, paired=False, hosts=hosts)
        found = design.interval(float(design.estimate(0.0).freedom), 1)
        covered += found.low <= 3.0 <= found.high
        assert found.low <= design.difference <= found.high
    assert covered / 60 >= 0.85


def test_hosts_with_one_boot_of_each_arm_are_pairs_and_need_to_be_enough() -> None:
    first, second, hosts = boots(np.random.default_rng(7), ((1, 1),) * FEWEST, effect=5.0)
    design = design_of(first, second, paired=False, hosts=hosts)
    assert isinstance(design, Pairs)
    assert design.difference == pytest.approx(float((second - first).mean()))
    assert design.enough
    four = design_of(first[:4], second[:4], paired=False, hosts=(hosts[0][:4], hosts[1][:4]))
    assert not four.enough
    # As much has to be known of the spread within hosts as five boots of one host say.
    for layout, enough in ((((3, 3), (3, 2)), False), (((3, 3), (3, 3)), True), (((9, 1), (9, 4)), False)):
        first, second, hosts = boots(np.random.default_rng(8), layout)
        assert design_of(first, second, paired=False, hosts=hosts).enough is enough, layout


def test_a_host_that_is_all_noise_leaves_an_interval() -> None:
    """Its one degree of freedom asks the bootstrap for more than there is."""
    first = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1000.0])
    second = np.array([0.0, 1.0, 2.5, 3.0, 4.5, 5.0, -900.0, 4000.0])
    hosts = (["a"] * 6 + ["b"], ["a"] * 6 + ["b"] * 2)
    design = design_of(first, second, paired=False, hosts=hosts)
    assert design.enough
    estimate = design.estimate(0.0)
    assert float(estimate.freedom) < 2
    found = design.interval(float(estimate.freedom), 1)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low < design.difference < found.high


def test_what_is_the_same_on_each_host_is_identical_though_hosts_differ() -> None:
    def of(second: tuple[float, ...]) -> Significance:
        hosts = (("a", "a", "a", "b", "b", "b"), ("a", "a", "a", "b", "b", "b"))
        sample = Sample((1.0, 1.0, 1.0, 9.0, 9.0, 9.0), second, False, resolution=1.0, hosts=hosts)
        return differences({"x": sample})["x"].significance

    assert of((1.0, 1.0, 1.0, 9.0, 9.0, 9.0)) is Significance.IDENTICAL
    assert of((1.0, 1.0, 1.0, 9.0, 9.0, 10.0)) is Significance.NOT_SIGNIFICANT
    assert of((31.0, 31.0, 31.0, 39.0, 39.0, 39.0)) is Significance.SIGNIFICANT


def test_trials_of_a_boot_average_before_hosts_are_compared() -> None:
    sample = Sample(
        (1.0, 3.0, 10.0),
        (4.0, 20.0, 30.0),
        False,
        boots=(("k of a", "k of a", "k of b"), ("x of a", "x of b", "y of b")),
        hosts=(("a", "a", "b"), ("a", "b", "b")),
    )
    found = differences({"x": sample})["x"]
    # On a 4 less 2, on b 25 less 10, with the weights 1/2 and 2/3.
    assert (found.n, found.trials) == (2, 3)
    assert found.estimate == pytest.approx((2 / 2 + 15 * 2 / 3) / (1 / 2 + 2 / 3))


def test_losses_are_compared_within_hosts() -> None:
    """One host loses what it is given, and one arm ran mostly there."""
    hosts = ((7, 8, 2, 2), (0, 2, 0, 8))
    together = LostCounts(7, 10, 2, 10)
    apart = LostCounts(7, 10, 2, 10, hosts)
    assert significance.p_of_counts((7, 10, 2, 10)) < 0.1
    assert significance.p_of_counts(*hosts) == 1.0
    assert differences({"lost": apart})["lost"].p == 1.0
    assert differences({"lost": together})["lost"].estimate == pytest.approx(-0.5)
    # The hosts' differences, +1/8 and 0, by their weights.
    assert differences({"lost": apart})["lost"].estimate == pytest.approx(0.125 * 1.6 / (1.6 + 1.6))
    assert LostCounts(8, 9, 8, 9, ((8, 8, 8, 8), (0, 1, 0, 1))).same
    # A host on which one arm was never tried says nothing.
    alone = LostCounts(5, 8, 0, 6, ((0, 3, 0, 6), (5, 5, 0, 0)))
    assert differences({"lost": alone})["lost"].significance is Significance.IDENTICAL


def test_p_of_losses_on_hosts_agrees_with_scipy() -> None:
    """The sum of hypergeometric distributions; of one host it is Fisher's, which another test has."""
    hosts = ((3, 6, 1, 7), (2, 5, 4, 6), (0, 4, 2, 3))
    chances = np.ones(1)
    for first, of_first, second, of_second in hosts:
        law = scipy_stats.hypergeom(of_first + of_second, first + second, of_second)
        chances = np.convolve(chances, law.pmf(np.arange(min(first + second, of_second) + 1)))
    seen = sum(second for *_, second, _ in hosts)
    expected = min(1.0, 2 * min(chances[: seen + 1].sum(), chances[seen:].sum()))
    assert significance.p_of_counts(*hosts) == pytest.approx(expected)
