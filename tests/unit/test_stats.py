"""Statistics: false alarms are as rare, and planted differences found as often, as is promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from orchestrator.stats import (
    FEWEST,
    LEVEL,
    POWER,
    Difference,
    LostCounts,
    Sample,
    Significance,
    averaged,
    connected,
    differences,
    of_few,
)
from orchestrator.stats import interval as intervals
from orchestrator.stats import tests as significance
from orchestrator.stats.tests import Floats

RUNS, METRICS = 1000, 12


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Made-up readings without any effect in them."""
    if kind == "normal":
        return rng.normal(100, 15, shape)
    if kind == "skewed":
        return rng.lognormal(3, 0.6, shape)
    if kind == "counts":
        return rng.poisson(4, shape).astype(float)
    if kind == "few counts":  # mostly nought: many ties
        return rng.poisson(0.3, shape).astype(float)
    assert kind == "dependent"  # one cause moves all metrics of a trial
    return rng.normal(0, 5, (*shape[:-2], 1, shape[-1])) + rng.normal(0, 1, shape)


def alarms(first: Floats, second: Floats, *, paired: bool, resolution: float, level: float = LEVEL) -> float:
    """The share of runs (first axis) in which any metric (second axis) is called different."""
    if paired:
        estimate = significance.from_pairs(second - first, resolution)
    else:
        estimate = significance.from_groups(first, second, resolution)
    adjusted = significance.holm(significance.p_values(estimate))
    return float((adjusted <= level).any(axis=-1).mean())


def at_most(share: float, runs: int = RUNS) -> float:
    """What a true share is not seen above but once in ten thousand tests."""
    return float(scipy_stats.binom.isf(1e-4, runs, share)) / runs


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("trials", [FEWEST, 6, 20])
@pytest.mark.parametrize("kind", ["normal", "skewed", "counts", "few counts", "dependent"])
def test_identical_arms_are_called_different_no_more_often_than_stated(
    kind: str, trials: int, paired: bool
) -> None:
    rng = np.random.default_rng(trials)
    first, second = (noise(kind, rng, (RUNS, METRICS, trials)) for _ in range(2))
    resolution = 1.0 if "counts" in kind else 0.0
    share = alarms(first, second, paired=paired, resolution=resolution)
    assert share <= at_most(LEVEL)
    if kind == "normal":  # and the level is used: a test that never calls anything would pass the line above
        assert share >= LEVEL / 2


def test_the_check_of_false_alarms_can_fail() -> None:
    rng = np.random.default_rng(1)
    first, second = (noise("normal", rng, (RUNS, METRICS, 6)) for _ in range(2))
    raw = significance.p_values(significance.from_pairs(second - first))
    assert float((raw <= LEVEL).any(axis=-1).mean()) > at_most(LEVEL)  # not adjusted: 1 - 0.95**12


# Which boot each of the eight trials of a night starts from.
EIGHT_BOOTS, ONE_BOOT = tuple(range(8)), (0,) * 8
LAYOUTS = (
    EIGHT_BOOTS,
    (0, 1, 2, 3, 4, 0, 1, 2),  # five boots in turn: some twice
    (0, 0, 0, 1, 2, 3, 4, 5),
    (0, 0, 1, 1, 2, 2, 3, 3),
    ONE_BOOT,
)


def nested(rng: np.random.Generator, boots: tuple[int, ...], ratio: float) -> Floats:
    """Nights of metrics of trials, of which those of one boot share what is the boot's own."""
    shape = (RUNS, METRICS, len(boots))
    of_boot = rng.normal(0, ratio, (RUNS, METRICS, max(boots) + 1))
    return of_boot[..., list(boots)] + rng.normal(0, 1, shape)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0, 0.25, 0.5, 1])
@pytest.mark.parametrize("boots", LAYOUTS, ids=str)
@pytest.mark.parametrize("paired", [True, False])
def test_boots_that_differ_raise_no_false_alarm(boots: tuple[int, ...], ratio: float, paired: bool) -> None:
    one = Sample((1.0,) * 8, (2.0,) * 8, paired, boots=(boots, boots))
    assert one.enough is (len(set(boots)) >= FEWEST)
    if not one.enough:  # nothing is said, so nothing that is false
        assert differences({"x": one})["x"].significance is Significance.TOO_FEW_BOOTS
        return
    rng = np.random.default_rng([len(set(boots)), int(100 * ratio)])
    # Pairs of trials of a run are of boots of their own, too, be they of one arm or of two.
    first, second = (averaged(nested(rng, boots, ratio), boots) for _ in range(2))
    share = alarms(first, second, paired=paired, resolution=0)
    assert share <= at_most(LEVEL)
    if len(set(boots)) == len(boots):
        assert share >= LEVEL / 2


@pytest.mark.parametrize(("ratio", "false_alarms"), [(0.25, 0.16), (0.5, 0.54), (1, 0.98)])
def test_trials_of_one_boot_as_the_unit_raise_many(ratio: float, false_alarms: float) -> None:
    """What the test above would see if it could see nothing else: each trial taken for a boot of its own."""
    rng = np.random.default_rng(7)
    first, second = (nested(rng, ONE_BOOT, ratio) for _ in range(2))
    share = alarms(first, second, paired=False, resolution=0)
    assert share == pytest.approx(false_alarms, abs=0.05)
    assert share > at_most(LEVEL)


def test_trials_average_within_a_boot() -> None:
    values = np.array([[1.0, 10.0, 3.0, 20.0, 5.0], [0.0, 0.0, 0.0, 4.0, 6.0]])
    assert averaged(values, "abaca").tolist() == [[3.0, 10.0, 20.0], [2.0, 0.0, 4.0]]
    sample = Sample(tuple(values[0]), tuple(values[1]), False, boots=(tuple("abaca"), tuple("abcde")))
    found = differences({"x": sample})["x"]
    assert (found.n, found.trials, found.estimate) == (3, 5, 2.0 - 11.0)


def test_pairs_that_share_a_boot_of_either_side_are_one() -> None:
    assert connected([("a", "x"), ("b", "y"), ("a", "x")]) == (0, 1, 0)
    assert connected([("a", "x"), ("b", "x"), ("c", "z"), ("c", "w")]) == (0, 0, 1, 1)
    assert connected([("a", "x"), ("b", "y"), ("b", "x")]) == (0, 0, 0)
    # The same boot on both sides is what makes a pair; it does not tie one pair to another.
    assert connected([("a", "a"), ("b", "b")]) == (0, 1)


def printed(estimate: significance.Estimate) -> Floats:
    """What is printed as detectable, of many experiments at once; Welch's freedom is each one's own."""
    grid = np.linspace(estimate.freedom.min(), estimate.freedom.max(), 24)
    factors = [significance.detectable(1.0, float(freedom), LEVEL / METRICS) for freedom in grid]
    return np.interp(estimate.freedom, grid, factors) * estimate.error


# docs/statistics.md: how often what is detectable by the estimated spread, taken for the true one, is found.
TAKEN_FOR_TRUTH = {FEWEST: 0.66, 8: 0.70, 12: 0.73}


@pytest.mark.slow
@pytest.mark.parametrize("boots", [FEWEST, 6, 8, 12])
@pytest.mark.parametrize("paired", [True, False])
def test_what_is_printed_as_detectable_is_found_as_often_as_it_says(boots: int, paired: bool) -> None:
    """An experiment estimates its spread and prints a difference; the next one has that difference in it."""
    runs = 4000
    rng = np.random.default_rng(boots)

    def estimated(shift: Floats) -> significance.Estimate:
        first, second = (rng.normal(0, 7, (runs, METRICS, boots)) for _ in range(2))
        second[:, 0] += shift[:, None]
        if paired:
            return significance.from_pairs(second - first)
        return significance.from_groups(first, second)

    said = printed(estimated(np.zeros(runs)))[:, 0]
    again = estimated(said)
    found = float((significance.holm(significance.p_values(again))[:, 0] <= LEVEL).mean())
    assert found == pytest.approx(POWER, abs=0.03)
    if boots in TAKEN_FOR_TRUTH and paired:
        # The estimate taken for the truth promises more than it keeps.
        critical, freedom = scipy_stats.t.isf(LEVEL / METRICS / 2, boots - 1), boots - 1
        shifts = np.linspace(0, 20, 2001)
        as_truth = shifts[np.searchsorted(scipy_stats.nct.sf(critical, freedom, shifts), POWER)]
        share = as_truth / significance.detectable(1.0, freedom, LEVEL / METRICS)
        kept = significance.p_values(estimated(said * share))[:, 0] <= LEVEL / METRICS
        assert kept.mean() == pytest.approx(TAKEN_FOR_TRUTH[boots], abs=0.02)
        assert kept.mean() < POWER - 0.04


@pytest.mark.parametrize("counts", [(0, 8, 8, 8), (1, 8, 5, 9), (5, 5, 0, 5), (3, 10, 4, 12)])
def test_p_of_counts_agrees_with_scipy(counts: tuple[int, int, int, int]) -> None:
    first, of_first, second, of_second = counts
    table = [[second, of_second - second], [first, of_first - first]]
    less, more = (scipy_stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater"))
    assert significance.p_of_counts(counts) == pytest.approx(min(1, 2 * min(less, more)))


def test_p_of_lost_trials_is_what_the_docs_say() -> None:
    """docs/nightly.md: 4 of 8 against 0 of 8 may be chance, 5 of 8 are not."""
    four, five = (significance.p_of_counts((0, 8, lost, 8)) for lost in (4, 5))
    assert (round(four, 2), round(five, 2)) == (0.08, 0.03)


def test_losses_share_the_level_with_the_metrics() -> None:
    rng = np.random.default_rng(3)
    noisy = {
        f"m{i}": Sample(tuple(rng.normal(0, 1, 6)), tuple(rng.normal(0, 1, 6)), paired=False)
        for i in range(3)
    }
    lost = differences({**noisy, "lost": LostCounts(0, 8, 8, 8)})["lost"]
    assert lost.significance is Significance.SIGNIFICANT
    assert lost.p_adjusted == pytest.approx(4 * significance.p_of_counts((0, 8, 8, 8)))
    assert differences({"lost": LostCounts(0, 8, 1, 8)})["lost"].significance is Significance.NOT_SIGNIFICANT
    assert {differences({"lost": LostCounts(n, 8, n, 8)})["lost"].significance for n in (0, 8)} == {
        Significance.IDENTICAL
    }
    assert differences({**noisy, "lost": LostCounts(0, 8, 0, 8)})["m0"].p_adjusted == pytest.approx(
        differences(noisy)["m0"].p_adjusted
    )


def test_few_boots_have_no_interval_however_many_trials_they_have() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(10, 1, 20)
    assert of_few(values, ["one"] * 20) is None
    assert of_few(values, [number % 4 for number in range(20)]) is None
    found = of_few(values, [number % 5 for number in range(20)])
    assert found is not None
    low, high = scipy_stats.t.interval(
        0.95, 4, loc=values.mean(), scale=scipy_stats.sem([values[n::5].mean() for n in range(5)])
    )
    assert [found.low, found.high] == pytest.approx([low, high])


def test_a_planted_difference_is_found_and_the_others_are_not() -> None:
    rng = np.random.default_rng(4)
    first = {f"m{i}": rng.normal(100, 10, 8) for i in range(10)}
    second = {
        name: values + rng.normal(0, 2, 8) + (12 if name == "m3" else 0) for name, values in first.items()
    }
    samples = {name: Sample(tuple(first[name]), tuple(second[name]), paired=True) for name in first}
    found = differences(samples, seed=7)
    assert [name for name, one in found.items() if one.significance is Significance.SIGNIFICANT] == ["m3"]
    planted = found["m3"]
    assert planted.interval is not None
    assert planted.interval.low < 12 < planted.interval.high
    assert planted.detectable is not None
    assert planted.detectable < 12
    # Not paired, the spread between trials hides it; and it is said that it could not have been seen.
    apart = differences({name: Sample(s.first, s.second, paired=False) for name, s in samples.items()})["m3"]
    assert apart.significance is Significance.NOT_SIGNIFICANT
    assert apart.detectable is not None
    assert apart.detectable > 12


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(5)
    sample = Sample(tuple(rng.normal(0, 1, 6)), tuple(rng.normal(0, 1, 6)), paired=True)
    once, again = (differences({"x": sample}, seed=3)["x"] for _ in range(2))
    assert once == again
    assert differences({"x": sample}, seed=4)["x"].interval != once.interval


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "least"), [(FEWEST, 0.88), (6, 0.91), (15, 0.93)])
@pytest.mark.parametrize("paired", [True, False])
def test_intervals_cover_what_is_true(
    trials: int, least: float, paired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same code as in use, on many samples at once and with fewer resamples.
    monkeypatch.setattr(intervals, "RESAMPLES", 1999)
    rng = np.random.default_rng(trials)
    runs, truth = 1000, 3.0
    if paired:
        samples = (rng.normal(truth, 2, (runs, trials)),)
        low, high = intervals._bootstrap(samples, intervals._mean, trials - 1.0, 1, 0.95)
    else:
        two = (rng.normal(10, 2, (runs, trials)), rng.normal(10 + truth, 2, (runs, trials)))
        low, high = intervals._bootstrap(two, intervals._mean_difference, 2.0 * trials - 2, 1, 0.95)
    covered = float(((low <= truth) & (truth <= high)).mean())
    assert least <= covered <= 0.98  # docs/statistics.md says what few trials cost


def only(
    first: list[float], second: list[float], *, paired: bool = True, resolution: float = 0
) -> Difference:
    """The difference in one metric alone."""
    return differences({"x": Sample(tuple(first), tuple(second), paired, resolution)})["x"]


def test_few_boots_get_no_interval() -> None:
    found = only([1.0, 2.0, 3.0, 4.0], [100.0, 101.0, 99.0, 104.0])
    assert (found.significance, found.n) == (Significance.TOO_FEW_BOOTS, 4)
    assert found.estimate == 98.5
    assert (found.interval, found.p, found.detectable, found.effect) == (None,) * 4


@pytest.mark.parametrize("paired", [True, False])
def test_what_is_always_the_same_is_said_to_be(paired: bool) -> None:
    found = only([60.0] * 6, [60.0] * 6, paired=paired, resolution=1)
    assert (found.significance, found.estimate, found.interval) == (Significance.IDENTICAL, 0.0, None)
    varied = only([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0], paired=paired)
    assert varied.significance is (Significance.IDENTICAL if paired else Significance.NOT_SIGNIFICANT)


@pytest.mark.parametrize("paired", [True, False])
def test_without_any_spread_the_resolution_stands_in_for_it(paired: bool) -> None:
    far = only([25_611.0] * 6, [112.0] * 6, paired=paired, resolution=1)
    assert far.significance is Significance.SIGNIFICANT
    assert far.interval is not None
    assert far.interval.low == far.interval.high == far.estimate == -25_499
    assert far.effect is None
    assert only([60.0] * 6, [200.0] * 6, paired=paired, resolution=1).significance is Significance.SIGNIFICANT
    near = only([60.0] * 6, [61.0] * 6, paired=paired, resolution=1)
    assert near.significance is Significance.NOT_SIGNIFICANT
    assert near.detectable is not None
    assert near.detectable > 1


def test_a_nought_to_relate_to_gives_no_relative_difference() -> None:
    assert only([0.0] * 5, [1.0, 2.0, 3.0, 1.0, 2.0]).relative is None
    assert only([50.0] * 5, [25.0] * 5).relative == -0.5


def test_metrics_that_cannot_differ_are_no_further_chance_to_err() -> None:
    rng = np.random.default_rng(2)
    noisy = Sample(tuple(rng.normal(0, 1, 6)), tuple(rng.normal(1.9, 1, 6)), paired=True)
    alone = differences({"x": noisy})["x"]
    constant = {f"c{i}": Sample((4.0,) * 6, (4.0,) * 6, paired=True) for i in range(20)}
    assert differences({**constant, "x": noisy})["x"].p_adjusted == alone.p_adjusted == alone.p


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_as_it_is_defined(p: list[float]) -> None:
    adjusted = significance.holm(np.array(p))
    ordered = sorted(range(len(p)), key=lambda i: p[i])
    running = 0.0
    for rank, index in enumerate(ordered):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        assert adjusted[index] == pytest.approx(running)


@pytest.mark.parametrize("paired", [True, False])
def test_p_agrees_with_scipy(paired: bool) -> None:
    rng = np.random.default_rng(9)
    first, second = rng.normal(0, 1, 7), rng.normal(0.8, 3, 7)
    if paired:
        ours = significance.p_values(significance.from_pairs(second - first))
        theirs = scipy_stats.ttest_rel(second, first).pvalue
    else:
        ours = significance.p_values(significance.from_groups(first, second))
        theirs = scipy_stats.ttest_ind(second, first, equal_var=False).pvalue
    assert float(ours) == pytest.approx(theirs)
