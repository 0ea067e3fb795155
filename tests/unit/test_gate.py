"""A baseline and its gate: planted regressions fail, improvements and chance do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.analysis.gate import gate_line, gate_sentences, next_commands
from orchestrator.errors import BadInputError
from orchestrator.records.plan import PlanRecord
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.stats import difference
from orchestrator.summary import CATALOGUE
from orchestrator.verdict import (
    LOST,
    ArmFigures,
    Gate,
    RunFigures,
    TrialFigures,
)

MIB = 1 << 20
SHORTFALL, ACHIEVED, NEEDED = "unplug_shortfall_bytes", "unplug_achieved_bytes", "second_level_needed_bytes"


def run(
    shortfall_mib: float, *, name: str = "r1", trials: int = 8, seed: int = 1, accel: str = "tcg"
) -> RunFigures:
    rng = np.random.default_rng(seed)
    figures = []
    for number in range(trials):
        kept = round(shortfall_mib + rng.normal(0, 2)) * MIB
        metrics = {SHORTFALL: kept, ACHIEVED: 2048 * MIB - kept, NEEDED: kept}
        figures.append(TrialFigures(f"a-{number}", number, number, "", metrics))
    arm = ArmFigures("a", "6.12", accel, {"guest": "debian-13"}, tuple(figures))
    return RunFigures(name, "nightly", SCHEMA_VERSION, "c0ffee", (arm,))


BASE = run(100.0, name="base")


def words(gate: Gate, figures: RunFigures) -> dict[str, str]:
    return {one.metric: one.result for one in gate.judge(figures).changes}


def test_more_memory_kept_is_a_regression_and_fails() -> None:
    outcome = Gate(BASE, "regression").judge(run(150.0, seed=2))
    assert {one.metric: one.result for one in outcome.changes} == {
        SHORTFALL: "regression",
        ACHIEVED: "regression",
        NEEDED: "change",  # neither way is better
    }
    assert not outcome.passed
    assert {one.metric for one in outcome.failing} == {SHORTFALL, ACHIEVED}
    said = gate_sentences(outcome)
    (kept,) = (sentence for sentence in said if "shortfall" in sentence)
    assert kept.startswith("Regression: unplug_shortfall_bytes of a: ")
    assert "MiB more than the baseline [" in kept
    assert kept.endswith(", +49 % (median 101 MiB before, 149.5 MiB now).")
    assert gate_line(outcome) == ("bad", "baseline: failed (2 of 3 metrics, base)")
    assert list(next_commands(outcome, "r1"))[1].startswith("orchestrator baseline r1 -o ")


def test_less_is_an_improvement_and_passes_unless_any_change_fails() -> None:
    better = run(50.0, seed=2)
    assert words(Gate(BASE, "regression"), better)[SHORTFALL] == "improvement"
    assert Gate(BASE, "regression").judge(better).passed
    assert not Gate(BASE, "change").judge(better).passed
    assert Gate(BASE, "nothing").judge(run(900.0)).passed


def test_chance_passes() -> None:
    outcome = Gate(BASE, "change").judge(run(100.0, seed=3))
    assert {one.result for one in outcome.changes} == {"none"}
    assert outcome.passed
    assert "do not differ significantly" in gate_sentences(outcome)[-1]


def test_too_few_boots_are_undecided_say_so_and_do_not_pass() -> None:
    outcome = Gate(BASE, "change").judge(run(900.0, trials=4))
    assert {one.result for one in outcome.changes} == {"undecided"}
    assert outcome.undecided_arms == ("a",)
    assert not outcome.passed, "no worse than the baseline is what a pass would say"
    said = "\n".join(gate_sentences(outcome))
    assert (
        "too few boots to say: 8 trials of 8 boots and 4 trials of 4 boots (4 to compare, at least 5" in said
    )
    line = "baseline: not decided, there are too few boots or readings of a (base)"
    assert gate_line(outcome) == ("bad", line)
    assert gate_line(replace(outcome, fail_on="nothing")) == ("poor", line)
    assert any("`boots` of at least 5" in words for words in next_commands(outcome, "r1"))


def test_what_cannot_be_compared_fails_and_says_why() -> None:
    gate = Gate(BASE, "regression")
    outcome = gate.judge(run(100.0, accel="kvm"))
    assert "acceleration of a: tcg against kvm" in outcome.refused
    assert not outcome.passed
    forced = replace(gate, force=True).judge(run(100.0, seed=3, accel="kvm"))
    assert forced.passed
    assert forced.forced
    other = replace(run(100.0, seed=3), arms=(replace(run(100.0, seed=3).arms[0], kernel="6.13"),))
    assert not gate.judge(other).passed
    assert replace(gate, varies=("kernel",)).judge(other).passed


def test_a_baseline_of_something_else_is_told_before_anything_runs() -> None:
    plan = {"scenario": "nightly", "guest": "debian-13", "arms": [{"name": "b"}, {"name": "a"}]}
    base = replace(BASE, arms=(replace(BASE.arms[0], does={"guest": '"debian-13"'}),))

    def planned(**other: object) -> PlanRecord:
        return PlanRecord.model_validate(plan | other)

    Gate(base).must_fit(planned())
    for other, why in (
        ({"scenario": "other"}, "scenario: nightly against other"),
        ({"guest": "debian-14"}, 'guest of a: "debian-13" against "debian-14"'),
        ({"arms": [{"name": "b"}]}, "no arm in common"),
    ):
        with pytest.raises(BadInputError, match=why):
            Gate(base).must_fit(planned(**other))
    with pytest.raises(BadInputError, match=f"schema version: 0 against {SCHEMA_VERSION}"):
        Gate(replace(base, schema_version=0)).must_fit(planned())
    Gate(base, varies=("guest",)).must_fit(planned(guest="debian-14"))
    Gate(base, force=True).must_fit(planned(scenario="other"))


def arm_with(figures: RunFigures, **metrics: float) -> RunFigures:
    """The run with these metrics in all its trials."""
    (arm,) = figures.arms
    return replace(
        figures,
        arms=(replace(arm, trials=tuple(replace(one, metrics=metrics) for one in arm.trials)),),
    )


def test_of_a_rate_less_is_worse() -> None:
    rate = "workload_ops_per_second"
    before, after = arm_with(BASE, **{rate: 1000.0}), arm_with(run(0.0), **{rate: 900.0})
    assert words(Gate(before), after) == {rate: "regression"}
    assert words(Gate(after), before) == {rate: "improvement"}


def test_what_is_tolerated_is_told_and_passes_but_growth_from_nothing_is_more_than_any_share() -> None:
    worse = run(150.0, seed=2)
    outcome = Gate(BASE, "regression", tolerance=0.6).judge(worse)
    assert {one.result for one in outcome.changes} == {"tolerated", "change"}
    assert outcome.passed
    assert any(said.startswith("Worse, by less than the 60 % of it that") for said in gate_sentences(outcome))
    assert not Gate(BASE, "regression", tolerance=0.4).judge(worse).passed
    nothing, something = arm_with(BASE, **{SHORTFALL: 0.0}), arm_with(worse, **{SHORTFALL: 64.0 * MIB})
    assert not Gate(nothing, "regression", tolerance=9.0).judge(something).passed


def test_the_level_is_that_of_compare() -> None:
    slightly = run(104.0, seed=2)
    assert words(Gate(BASE, level=0.4), slightly)[SHORTFALL] == "regression"
    assert words(Gate(BASE, level=0.001), slightly)[SHORTFALL] == "none"


def test_what_is_gone_is_a_regression() -> None:
    night = arm_with(run(100.0, seed=3), **{SHORTFALL: 100.0 * MIB})
    night = replace(night, arms=(replace(night.arms[0], gaps={ACHIEVED: "no unplug step ended"}),))
    outcome = Gate(BASE, "regression").judge(night)
    gone = {one.metric: one.reason for one in outcome.failing}
    assert gone == {ACHIEVED: "not measured in a: no unplug step ended", NEEDED: "not measured in a"}
    assert not outcome.passed
    assert f"Regression: {NEEDED} of a: not measured in a." in gate_sentences(outcome)
    two = replace(BASE, arms=(*BASE.arms, replace(BASE.arms[0], name="b")))
    lost = [one for one in Gate(two).judge(run(100.0)).changes if one.arm == "b"]
    assert {(one.result, one.reason) for one in lost} == {("regression", "no trial of the arm was begun")}
    assert len(lost) == 4


TIMEOUT = "had not settled: unplug to 0 B"


def losing(figures: RunFigures, lost: int, *, why: str = TIMEOUT) -> RunFigures:
    """The run, of which the first trials timed out."""
    (arm,) = figures.arms
    gone, left = arm.trials[:lost], arm.trials[lost:]
    left_out = tuple((one.trial, why) for one in gone)
    return replace(
        figures,
        arms=(replace(arm, trials=left, left_out=left_out, lost={one.trial: one.boot for one in gone}),),
    )


@pytest.mark.parametrize("why", [TIMEOUT, "did not complete: lost", "did not complete: boot-timeout"])
def test_eight_that_time_out_are_a_regression(why: str) -> None:
    outcome = Gate(BASE, "regression").judge(losing(run(100.0, seed=3), 8, why=why))
    assert not outcome.passed
    assert outcome.undecided_arms == ()
    assert {one.result for one in outcome.changes} == {"regression"}
    said = gate_sentences(outcome)
    assert (
        "Regression: trials_lost of a: trials of 8 of 8 boots failed (lost, timed out or not settled), "
        "0 of 8 before." in said
    )
    assert f"Regression: {SHORTFALL} of a: no trial of a counts." in said
    assert gate_line(outcome)[0] == "bad"


def test_eight_that_time_out_are_one_also_where_they_are_of_one_boot_or_the_baseline_is_old() -> None:
    (arm,) = BASE.arms
    restores = replace(
        BASE, arms=(replace(arm, trials=tuple(replace(one, state="s") for one in arm.trials)),)
    )
    old = replace(BASE, arms=(replace(arm, lost=None),))
    for base in (restores, old):
        assert not Gate(base, "regression").judge(losing(restores, 8)).passed


@pytest.mark.parametrize(
    ("before", "now", "word"),
    [(0, 1, "none"), (0, 11, "regression"), (6, 7, "none"), (11, 0, "improvement")],
)
def test_clearly_more_lost_trials_are_a_regression_and_chance_is_not(
    before: int, now: int, word: str
) -> None:
    base, night = (run(100.0, seed=seed, trials=20, name=f"r{seed}") for seed in (1, 3))
    outcome = Gate(losing(base, before), "regression").judge(losing(night, now))
    (lost,) = (one for one in outcome.changes if one.metric == LOST)
    assert lost.result == word
    assert (lost.before, lost.after) == (before, now)
    assert outcome.passed is (word != "regression")


def test_what_was_interrupted_is_not_lost() -> None:
    assert not any(
        one.metric == LOST
        for why in ("is a warm-up", "did not complete: interrupted")
        for one in Gate(BASE).judge(replace_lost(losing(run(100.0, seed=3), 1, why=why))).changes
    )


def replace_lost(figures: RunFigures) -> RunFigures:
    """As a baseline of an older version has it, which says only why a trial is left out."""
    return replace(figures, arms=tuple(replace(arm, lost=None) for arm in figures.arms))


def test_a_night_of_restores_of_one_boot_is_not_passed() -> None:
    (arm,) = run(100.0, seed=3).arms
    one_boot = replace(arm, trials=tuple(replace(one, state="key.1") for one in arm.trials))
    outcome = Gate(BASE, "regression").judge(replace(BASE, run="r1", arms=(one_boot,)))
    assert outcome.undecided_arms == ("a",)
    assert not outcome.passed
    assert "8 trials of 8 boots and 8 trials of 1 boot (1 to compare" in " ".join(gate_sentences(outcome))


def test_an_arm_of_which_nothing_could_be_decided_fails_beside_one_that_is_kept() -> None:
    (arm,) = BASE.arms
    few = replace(arm, name="b", trials=arm.trials[:4])
    base, night = (replace(one, arms=(one.arms[0], few)) for one in (BASE, run(100.0, seed=3)))
    outcome = Gate(base, "regression").judge(night)
    assert (outcome.undecided_arms, outcome.passed) == (("b",), False)
    assert replace(outcome, fail_on="nothing").passed


GATED = [metric for metric in CATALOGUE if metric.unit and metric.better and not metric.given][:12]
SPREAD = 100 * MIB  # of every metric, so that its resolution does not matter


def night(rng: np.random.Generator, trials: int, name: str = "tonight", worse: float = 0.0) -> RunFigures:
    """Two arms of noise; the first metric of the first is worse by so many spreads."""
    figures = []
    for arm, shift in (("a", worse), ("b", 0.0)):
        noise = rng.normal(0, 1, (trials, len(GATED))) + 100
        noise[:, 0] += shift
        made = tuple(
            TrialFigures(
                f"{arm}-{number}",
                number,
                number,
                "",
                {metric.name: float(value) * SPREAD for metric, value in zip(GATED, row, strict=True)},
            )
            for number, row in enumerate(noise)
        )
        figures.append(ArmFigures(arm, "6.12", "tcg", {}, made))
    return RunFigures(name, "nightly", 1, "c0ffee", tuple(figures))


@pytest.mark.slow
@pytest.mark.parametrize("trials", [5, 8])
def test_few_nights_fail_by_chance_and_most_large_regressions_are_found(
    trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the result does not depend on would take most of the time.
    monkeypatch.setattr(difference, "_with_size", lambda found, *_: found)
    rng = np.random.default_rng(trials)
    nights = 1000

    def failing(worse: float = 0.0) -> set[tuple[str, str]]:
        gate = Gate(night(rng, trials, "base"), "regression")
        return {(one.metric, one.arm) for one in gate.judge(night(rng, trials, worse=worse)).failing}

    failed = sum(bool(failing()) for _ in range(nights))
    assert 0.005 < failed / nights < 0.05 + 3 * (0.05 * 0.95 / nights) ** 0.5
    found = sum((GATED[0].name, "a") in failing(4.0) for _ in range(200))
    assert found > 0.88 * 200


def test_one_corrupted_trial_of_eight_is_a_regression_whatever_chance_says() -> None:
    def with_mismatches(figures: RunFigures, counts: list[int]) -> RunFigures:
        (arm,) = figures.arms
        trials = tuple(
            replace(trial, metrics={**trial.metrics, "integrity_mismatches": float(count)})
            for trial, count in zip(arm.trials, counts, strict=True)
        )
        return replace(figures, arms=(replace(arm, trials=trials),))

    clean = with_mismatches(BASE, [0] * 8)
    night = with_mismatches(run(100.0, seed=3), [0] * 7 + [1])
    found = Gate(clean, "regression").judge(night)
    (change,) = (one for one in found.changes if one.metric == "integrity_mismatches")
    assert (change.result, change.before, change.after) == ("regression", 0.0, 1.0)
    assert not found.passed
    same = with_mismatches(run(100.0, seed=3), [0] * 8)
    assert words(Gate(clean, "regression"), same)["integrity_mismatches"] == "none"
    one_trial = with_mismatches(run(100.0, trials=1), [0])
    found = Gate(with_mismatches(BASE, [0] * 8), "regression").judge(one_trial)
    assert found.undecided_arms == ("a",), "no mismatch in one trial does not make up for four boots"
    assert not found.passed
