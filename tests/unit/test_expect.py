"""`expect:`: where it is wrong in the file, whether it came so, and what the run's end says then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from synthetic_run import write_run
from test_scenario import faults, good_but, load

from orchestrator import headline, summary
from orchestrator.actions.settle import POLL_SECONDS
from orchestrator.analysis.run import RunAnalysis
from orchestrator.errors import ExitCode
from orchestrator.export.junit import write_junit
from orchestrator.plan import Plan, make_plan
from orchestrator.run.execute import judged as exit_code_of
from orchestrator.verdict import ExpectationResult

MIB = 1 << 20
KEPT, RATE = "unplug_shortfall_bytes", "workload_ops_per_second"


def line(text: str) -> str:
    return good_but("steps:", f"expect:\n  - {{{text}}}\nsteps:")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"metric: {KEPT}, arm: b, at_most: 1MiB", "10:43: there is no arm 'b'; there are: a"),
        (
            f"metric: {KEPT}, arm: a, versus: a, at_most: 1MiB",
            "10:54: expect[0].versus: 'a' is the arm itself; name another one",
        ),
        (
            f"metric: {KEPT}, arm: a, at_most: 64MB",
            "10:55: expect[0].at_most: '64MB' is not a size; write 64MiB",
        ),
        (
            f"metric: {KEPT}, arm: a, at_most: 64",
            "10:55: expect[0].at_most: 64 is not a size; write a number with B, KiB",
        ),
        (
            f"metric: {RATE}, arm: a, at_most: 5s",
            "10:56: expect[0].at_most: '5s' is not a number; write one without a unit",
        ),
        (
            "metric: unplug_shortfal_bytes, arm: a, at_most: 1MiB",
            "10:14: expect[0].metric: 'unplug_shortfal_bytes' is no metric",
        ),
        (f"metric: {KEPT}, arm: a", "10:5: expect[0]: there is no bound; add at_most or at_least"),
        (f"metric: {KEPT}, arm: a, most: 1MiB", "did you mean 'at_most'?"),
    ],
)
def test_faults_have_their_place(tmp_path: Path, text: str, fault: str) -> None:
    assert any(fault in found for found in faults(tmp_path, line(text))), faults(tmp_path, line(text))


def test_no_time_is_expected_where_times_are_ignored(tmp_path: Path) -> None:
    timed = line(f"metric: {RATE}, arm: a, at_least: 5")
    assert load(tmp_path, timed).body.expect[0].metric == RATE
    (found,) = faults(tmp_path, timed.replace("steps:", "times: ignored\nsteps:"))
    assert "10:14: workload_ops_per_second is missing where `times` is ignored" in found
    counted = timed.replace("steps:", "accel: tcg\nclock: instructions\nsteps:")
    (found,) = faults(tmp_path, counted.replace("  memory:", "  vcpus: 1\n  memory:"))
    assert "11:14: workload_ops_per_second is missing where the clock counts instructions" in found
    assert "`clock: time`" in found


def test_a_good_one_is_in_the_plan_in_bytes(tmp_path: Path) -> None:
    scenario = load(tmp_path, line(f"metric: {KEPT}, arm: a, at_least: -64MiB, at_most: 2MiB"))
    plan = make_plan(scenario)
    (expected,) = plan.expect
    assert (expected.at_least, expected.at_most) == (-64 * MIB, 2 * MIB)
    assert Plan.from_json(plan.to_json()) == plan


def test_without_an_arm_it_is_about_each(tmp_path: Path) -> None:
    text = line("metric: integrity_mismatches, at_most: 0").replace("arms:\n", "arms:\n  b:\n")
    plan = make_plan(load(tmp_path, text))
    assert [(one.metric, one.arm, one.at_most) for one in plan.expect] == [
        ("integrity_mismatches", "b", 0),
        ("integrity_mismatches", "a", 0),
    ]
    versus = text.replace("integrity_mismatches,", f"{KEPT}, versus: b,").replace(
        "at_most: 0", "at_most: 1MiB"
    )
    (expected,) = make_plan(load(tmp_path, versus)).expect
    assert (expected.arm, expected.versus) == ("a", "b"), "no arm is held against itself"


def judged(tmp_path: Path, *expected: dict[str, Any]) -> Path:
    """A run of 6.12 (426 MiB kept) and 7.3-pt-reclaim (422 MiB), which expected something."""
    directory = write_run(tmp_path, repeats=2, snapshots=False)
    plan = json.loads((directory / "plan.json").read_text()) | {"expect": list(expected)}
    (directory / "plan.json").write_text(json.dumps(plan))
    summary.refresh(directory)
    return directory


NEW = {"metric": KEPT, "arm": "7.3-pt-reclaim"}
MET = [
    {**NEW, "at_most": 422 * MIB},
    {**NEW, "versus": "6.12", "at_most": -4 * MIB, "at_least": -4 * MIB},
    {"metric": RATE, "arm": "6.12", "at_least": 5000},
]
NOT_MET = [
    {**NEW, "at_most": 421 * MIB},
    {**NEW, "versus": "6.12", "at_most": -5 * MIB},
    {"metric": "second_level_bytes", "arm": "6.12", "at_most": 1},
    {"metric": KEPT, "arm": "gone", "at_most": 1},
    {"metric": "unplug_requested_bytes", "arm": "6.12", "versus": "7.3-pt-reclaim", "at_most": 1},
]


ENDS: list[dict[str, object]] = [
    {"metric": "outcome", "arm": "6.12", "one_of": ["completed"]},
    {"metric": "unplug_outcome", "arm": "6.12", "one_of": ["done", "partial"]},
]


def ends(
    tmp_path: Path, arm: str = "6.12", *, after: str = "completed", unplug: str = "partial"
) -> list[ExpectationResult]:
    """How ENDS are judged where the first trial of 6.12 ended so."""
    expected = [{**one, "arm": arm} for one in ENDS]
    directory = judged(tmp_path, *expected)
    path = directory / "trials" / "6.12-01" / "events.jsonl"
    text = path.read_text().replace('"outcome": "completed"', f'"outcome": "{after}"')
    path.write_text(text.replace('"outcome": "partial"', f'"outcome": "{unplug}"'))
    summary.refresh(directory)
    return list(RunAnalysis.open(directory).verdicts.expectation_results)


@pytest.mark.slow
def test_how_each_trial_is_to_end(tmp_path: Path) -> None:
    good = ends(tmp_path / "1")
    assert [one.met for one in good] == [True, True]
    assert [one.expectation for one in good] == [
        "outcome of 6.12 completed",
        "unplug_outcome of 6.12 done or partial",
    ]
    lost, settled = ends(tmp_path / "2", after="lost")
    assert (lost.met, settled.met) == (False, True)
    assert lost.found == "lost (1 of 2 trials), completed (1 of 2 trials)"
    _, moving = ends(tmp_path / "3", unplug="timeout")
    assert (moving.met, moving.found) == (False, "timeout (1 of 2 trials), partial (1 of 2 trials)")
    assert [one.met for one in ends(tmp_path / "4", "gone")] == [False, False], "an arm without trials"


def test_a_trial_that_never_began_did_not_end_well(tmp_path: Path) -> None:
    directory = write_run(tmp_path, repeats=2, trials=2, snapshots=False, expect=ENDS)
    summary.refresh(directory)
    assert [one.found for one in RunAnalysis.open(directory).verdicts.expectation_results] == [
        "completed (1 of 2 trials), never began (1 of 2 trials)",
        "partial (1 of 2 trials), never began (1 of 2 trials)",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("metric: outcome, arm: a, one_of: complete", "'complete' is no outcome; did you mean 'completed'?"),
        ("metric: outcome, arm: a", "there is no bound; add one_of"),
        ("metric: outcome, arm: a, at_most: 5", "a word has no bounds; write one_of: [...]"),
        (f"metric: {KEPT}, arm: a, one_of: done", "is a number; bound it by at_most or at_least"),
        ("metric: outcome, arm: a, one_of: []", "at least 1 item"),
    ],
)
def test_faults_of_words(tmp_path: Path, text: str, fault: str) -> None:
    assert any(fault in found for found in faults(tmp_path, line(text))), faults(tmp_path, line(text))


def test_words_are_in_the_plan(tmp_path: Path) -> None:
    plan = make_plan(load(tmp_path, line("metric: unplug_outcome, arm: a, one_of: done")))
    assert plan.expect[0].one_of == ["done"]
    assert Plan.from_json(plan.to_json()) == plan


def test_what_came_is_held_against_it(tmp_path: Path) -> None:
    found = RunAnalysis.open(judged(tmp_path, *MET, *NOT_MET)).verdicts.expectation_results
    assert [one.met for one in found] == [True] * len(MET) + [False] * len(NOT_MET)
    assert found[0].expectation == "unplug_shortfall_bytes of 7.3-pt-reclaim at most 422 MiB"
    assert [one.found for one in found[len(MET) :]] == [
        "422 MiB (median of 2 trials of 2 boots)",
        "-4 MiB (mean of 2 pairs of trials, 2 of boots)",
        "no trial of 6.12 that counts has a reading",
        "no trial of gone that counts has a reading",
        "it is what was asked for, not what came of it",
    ]


@pytest.mark.parametrize(
    ("expected", "code"), [(MET, ExitCode.COMPLETED), (NOT_MET[:1], ExitCode.EXPECTATION_FAILED)]
)
def test_the_exit_code_and_junit_follow(
    tmp_path: Path, expected: list[dict[str, Any]], code: ExitCode
) -> None:
    directory = judged(tmp_path, *expected)
    analysis = RunAnalysis.open(directory)
    assert exit_code_of(analysis) is code
    suite = etree.parse(write_junit(analysis)).getroot()
    cases = [case for case in suite if (case.get("classname") or "").endswith(".expect")]
    assert len(cases) == len(expected)
    assert suite.get("tests") == str(4 + len(expected))
    assert suite.get("failures") == str(int(code))


def test_the_resolution_of_a_time_is_that_of_the_looks_at_it() -> None:
    assert headline.METRIC["unplug_seconds"].resolution == POLL_SECONDS
