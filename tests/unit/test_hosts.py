"""Arms and runs of several hosts: what is a pair, what is compared with what, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import write_run
from test_compare import RATE, arm, run, typed

from orchestrator import summary
from orchestrator.analysis.differences import comparison_as_json, heading, significance_sentences
from orchestrator.analysis.run import RunAnalysis
from orchestrator.errors import BadInputError
from orchestrator.report.sections.conclusions import first_table
from orchestrator.stats import Significance
from orchestrator.store import open_run
from orchestrator.verdict import (
    LOST,
    ArmFigures,
    Gate,
    PairOfArms,
    RunFigures,
    compare_arms,
    compare_runs,
    read_baseline,
    write_baseline,
)

EFFECT = 5000.0  # of a host on the rate; a boot's own is 5, and 300 for each repeat
HOSTS = {
    "node0": {"cpu": "one CPU", "microcode": "0x1", "qemu": "10.0.2"},
    "node1": {"cpu": "another CPU", "microcode": "0x1", "qemu": "10.0.2"},
}


def on(made: ArmFigures, hosts: Sequence[str], *, paired: bool = True) -> ArmFigures:
    """The same arm with its trials on hosts, in turn; node1 has another level of the rate."""
    trials = tuple(
        replace(
            trial,
            host=host,
            seed=trial.seed if paired else hash_of(made.name) + trial.repeat,
            metrics={
                **trial.metrics,
                RATE: trial.metrics[RATE] - 300 * trial.repeat * (not paired) + EFFECT * (host == "node1"),
            },
        )
        for trial, host in zip(made.trials, [*hosts] * len(made.trials), strict=False)
    )
    return replace(made, trials=trials)


def hash_of(name: str) -> int:
    return 1000 * sum(name.encode())


def only_pair(figures: RunFigures) -> PairOfArms:
    (pair,) = compare_arms(figures).pairs
    return pair


def test_pairs_are_of_one_host_and_so_is_the_boot() -> None:
    """A state of one key is another boot on another host."""
    hosts = ("node0", "node1")
    balanced = run(on(arm("a"), hosts), on(arm("b", -8), hosts), hosts=HOSTS)
    pair = only_pair(balanced)
    assert (pair.pairing, pair.units, pair.hosts) == ("state", 6, hosts)
    assert pair.metrics[RATE].significance is Significance.NOT_SIGNIFICANT
    one_state = [
        replace(made, trials=tuple(replace(trial, state="k") for trial in made.trials))
        for made in balanced.arms
    ]
    assert only_pair(run(*one_state)).units == 2
    assert len(set(one_state[0].boots())) == 2
    # A repeat of which one trial was done again elsewhere is no pair.
    moved = on(arm("b", -8), ("node0", "node1", "node0", "node1", "node0", "node0"))
    found = compare_arms(run(balanced.arms[0], moved, hosts=HOSTS))
    (pair,) = found.pairs
    assert (pair.pairing, len(pair.pairs)) == ("state", 5)
    assert "1 of 6 pairs ran on two hosts and are none." in significance_sentences(found, pair)
    assert abs(pair.metrics[RATE].estimate) < 50
    assert "arms are not balanced over hosts (trials on node0, node1: a 3 and 3, b 4 and 2)" in found.notes[1]


def test_where_hosts_broke_more_pairs_than_they_left_trials_are_compared_host_by_host() -> None:
    """Twelve trials, put where there was room: seven repeats on two hosts, five on one."""
    first = on(arm("a", trials=12), ("node0",) * 8 + ("node1",) * 4)
    second = on(arm("b", trials=12), ("node0", "node0", *("node1",) * 6, "node0", *("node1",) * 3))
    found = compare_arms(run(first, second, hosts=HOSTS))
    (pair,) = found.pairs
    assert (pair.pairing, pair.pairs, pair.hosts) == ("none", (), ("node0", "node1"))
    assert heading(found, pair) == (
        "b against a: 12 trials of 12 boots of each arm, not paired, within 2 hosts"
    )
    assert comparison_as_json(found)["pairs"][0]["hosts"] == ["node0", "node1"]


UNBALANCED = [("node0",) * 8 + ("node1",) * 2, ("node0",) * 2 + ("node1",) * 8]


def unbalanced() -> list[ArmFigures]:
    """Two arms that are the same thing, not paired."""
    return [
        on(arm(name, trials=10), hosts, paired=False) for name, hosts in zip("ab", UNBALANCED, strict=True)
    ]


def test_the_same_thing_twice_on_two_hosts_is_not_different_and_would_be_without_them() -> None:
    first, second = (
        on(arm(name, trials=10), hosts, paired=False) for name, hosts in zip("ab", UNBALANCED, strict=True)
    )
    within = only_pair(run(first, second, hosts=HOSTS)).metrics[RATE]
    assert within.significance is Significance.NOT_SIGNIFICANT
    assert abs(within.estimate) < 20
    forgotten = [
        replace(made, trials=tuple(replace(trial, host="") for trial in made.trials))
        for made in (first, second)
    ]
    without = only_pair(run(*forgotten)).metrics[RATE]
    assert without.significance is Significance.SIGNIFICANT
    assert without.estimate == pytest.approx(0.6 * EFFECT, rel=0.02)


def test_a_difference_that_is_smaller_than_that_of_hosts_is_found() -> None:
    first, second = (
        on(arm(name, trials=10), hosts, paired=False) for name, hosts in zip("ab", UNBALANCED, strict=True)
    )
    faster = replace(
        second,
        trials=tuple(
            replace(trial, metrics={**trial.metrics, RATE: trial.metrics[RATE] + 40})
            for trial in second.trials
        ),
    )
    found = only_pair(run(first, faster, hosts=HOSTS)).metrics[RATE]
    assert found.significance is Significance.SIGNIFICANT
    assert found.interval is not None
    assert found.interval.low < 40 < found.interval.high
    assert found.interval.high - found.interval.low < 40


def test_arms_that_share_no_host_are_not_compared_and_the_reason_is_said() -> None:
    first, second = on(arm("a"), ("node0",)), on(arm("b", -8), ("node1",))
    gone = replace(second, lost={"b-07": "x of node1"}, lost_hosts={"b-07": "node1"})
    found = compare_arms(run(first, gone, hosts=HOSTS))
    (pair,) = found.pairs
    assert (pair.metrics, pair.lost, pair.hosts) == ({}, None, ())
    why = (
        "a ran on node0 only, b ran on node1 only: "
        "what differs between hosts would pass for a difference between arms"
    )
    assert set(pair.missing.values()) == {why}
    assert significance_sentences(found, pair) == [f"Not compared: {why}."]
    assert comparison_as_json(found)["pairs"][0]["lost_trials"] is None
    # What is on a host of its own is compared with none; the rest is.
    some = on(arm("b", trials=8), ("node0",) * 5 + ("node2",) * 3, paired=False)
    found = compare_arms(run(first, some))
    (pair,) = found.pairs
    assert pair.metrics[RATE].n == 5
    assert significance_sentences(found, pair)[0] == (
        "3 of 8 trials of b are compared with none: no trial of a ran on node2."
    )


def test_with_several_hosts_it_takes_more_boots_and_the_words_say_how_many() -> None:
    first, second = (on(arm(name, trials=5), ("node0", "node1"), paired=False) for name in "ab")
    found = compare_arms(run(first, second))
    (pair,) = found.pairs
    assert pair.metrics[RATE].significance is Significance.TOO_FEW_BOOTS
    assert "At least 6 boots needed" in significance_sentences(found, pair)[0]


def test_what_hosts_differ_in_is_named_and_what_they_have_in_common_is_not() -> None:
    hosts = ("node0", "node1")
    (note,) = compare_arms(run(on(arm("a"), hosts), on(arm("b"), hosts), hosts=HOSTS)).notes
    assert note == (
        "trials of 2 hosts (node0, node1): compared within each, and the differences averaged; "
        "CPU: one CPU (node0), another CPU (node1)"
    )
    assert compare_arms(run(on(arm("a"), hosts[:1]), on(arm("b"), hosts[:1]), hosts=HOSTS)).notes == ()


def test_the_noise_floor_is_within_hosts() -> None:
    few = [on(arm(name, trials=4), ("node0", "node1"), paired=False) for name in "ab"]
    assert compare_arms(run(*few)).noise[RATE] < 50


def test_losses_of_a_bad_host_are_not_those_of_an_arm() -> None:
    def lost(made: ArmFigures, hosts: Sequence[str]) -> ArmFigures:
        ended = on(made, hosts)
        bad = {one.trial: one for one in ended.trials if one.host == "node1"}
        return replace(
            ended,
            trials=tuple(one for one in ended.trials if one.trial not in bad),
            lost={name: one.boot for name, one in bad.items()},
            lost_hosts=dict.fromkeys(bad, "node1"),
        )

    first, second = (lost(arm(name, trials=10), hosts) for name, hosts in zip("ab", UNBALANCED, strict=True))
    pair = only_pair(run(first, second, hosts=HOSTS))
    assert pair.lost is not None
    assert pair.lost.significance is Significance.IDENTICAL, "all of node1, none of node0"
    forgotten = only_pair(
        run(
            *(
                replace(made, lost_hosts={}, trials=tuple(replace(one, host="") for one in made.trials))
                for made in (first, second)
            )
        )
    )
    assert forgotten.lost is not None
    assert forgotten.lost.p is not None
    assert forgotten.lost.p < 0.05


def test_two_runs_are_compared_within_the_hosts_that_both_have() -> None:
    first = run(on(arm("a", trials=12), ("node0", "node1")), hosts=HOSTS)
    faster = on(arm("a", trials=12, seed=2, state="t"), ("node0", "node0", "node1"))
    other = run(faster, name="r2", hosts={**HOSTS, "node1": {**HOSTS["node1"], "qemu": "9"}})
    with pytest.raises(BadInputError, match="QEMU of node1"):
        compare_runs(first, other)
    found = compare_runs(first, replace(other, hosts=HOSTS))
    (pair,) = found.pairs
    assert (pair.pairing, pair.hosts) == ("none", ("node0", "node1"))
    assert [note.partition(":")[0] for note in found.notes] == ["r1", "r2"]
    # No host of one is one of the other's: nothing is said, unless the host is the question.
    elsewhere = run(on(arm("a", trials=12, state="t"), ("node7", "node8")), name="r2")
    (pair,) = compare_runs(first, elsewhere).pairs
    assert pair.metrics == {}
    assert pair.incomparable.startswith("a ran on node0, node1 only, a ran on node7, node8 only")
    (pair,) = compare_runs(first, elsewhere, varies=["host"]).pairs
    assert pair.metrics[RATE].n == 12


def test_runs_of_one_host_each_are_compared_as_ever_and_hosts_of_two_names_are_named() -> None:
    here, there = on(arm("a"), ("node0",)), on(arm("a", seed=2), ("node9",))
    found = compare_runs(
        run(here, hosts={"node0": HOSTS["node0"]}), run(there, name="r2", hosts={"node9": {}})
    )
    assert found.pairs[0].metrics[RATE].n == 6
    assert found.pairs[0].pairing == "state", "a state's key names one boot, and caches are carried about"
    (note,) = found.notes
    assert note.startswith("host node0 against node9: what differs between them passes for one of the runs")
    again = compare_runs(run(here), run(on(arm("a", seed=2), ("node0",)), name="r2"))
    assert (again.notes, again.pairs[0].pairing) == ((), "state")
    older = compare_runs(run(arm("a")), run(on(arm("a", seed=2), ("node0",)), name="r2"))
    assert (older.notes, older.pairs[0].pairing) == ((), "state")


def test_a_baseline_names_its_hosts_and_a_gate_without_a_common_one_decides_nothing(tmp_path: Path) -> None:
    write_baseline(tmp_path / "b.json", run(on(arm("a"), ("node0", "node1")), hosts=HOSTS))
    baseline = read_baseline(tmp_path / "b.json")
    assert baseline.hosts == HOSTS
    assert {trial.host for trial in baseline.arms[0].trials} == {"node0", "node1"}
    outcome = Gate(baseline, fail_on="regression").judge(run(on(arm("a"), ("node7", "node8")), name="r2"))
    assert {change.result for change in outcome.changes if change.metric != LOST} == {"undecided"}
    assert not outcome.passed
    assert any("node0" in note and "CPU: one CPU" in note for note in outcome.notes)
    lost = replace(baseline.arms[0], lost={"a-07": "k of node0"}, lost_hosts={"a-07": "node0"})
    outcome = Gate(replace(baseline, arms=(lost,)), fail_on="regression").judge(
        run(on(arm("a"), ("node7", "node8")), name="r2")
    )
    assert {(change.result, change.reason) for change in outcome.changes if change.metric == LOST} == {
        ("undecided", "no host has trials of both")
    }


@pytest.fixture
def on_two_hosts(tmp_path: Path) -> Callable[[str], Path]:
    """A synthetic run whose trials say where they ran."""

    def written(order: str) -> Path:
        folder = write_run(
            tmp_path,
            repeats=6,
            jitter=3,
            snapshots=False,
            hosts={name: {"hostname": "same", **facts} for name, facts in HOSTS.items()},
        )
        for trial in sorted((folder / "trials").iterdir()):
            repeat = int(trial.name[-2:])
            arms = order.split("/")
            host = arms[trial.name.startswith("7")][repeat - 1]
            lines = (trial / "events.jsonl").read_text()
            begin = '"event": "trial.begin"'
            assert lines.count(begin) == 1
            (trial / "events.jsonl").write_text(lines.replace(begin, f'{begin}, "host": "node{host}"'))
        summary.refresh(folder)
        return folder

    return written


def test_a_run_of_two_hosts_says_so_everywhere(
    on_two_hosts: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = on_two_hosts("000111/000011")
    assert (folder / "summary.csv").read_text().splitlines()[0].count(",host,") == 1
    code, said, _ = typed(capsys, "show", folder)
    shown = " ".join(said.split())
    assert code == 0
    assert "hosts node0 (7 trials), node1 (5 trials)" in shown
    assert "CPU: one CPU (node0), another CPU (node1)" in shown
    assert "arms are not balanced over hosts" in shown
    analysis = RunAnalysis.of(open_run(folder))
    on_page = first_table(analysis.verdicts.comparison)
    assert on_page is not None
    assert any("CPU: one CPU (node0), another CPU (node1)." in note for note in on_page.notes)
    assert {one.host for one in analysis.summaries} == {"node0", "node1"}
    ended = next(one for one in analysis.conclusions if "guest page tables" in one)
    assert "of that" not in ended, "medians of arms that ran elsewhere are not set side by side"


def test_arms_apart_are_compared_in_no_sentence(on_two_hosts: Callable[[str], Path]) -> None:
    analysis = RunAnalysis.of(open_run(on_two_hosts("000000/111111")))
    assert not any(row.differs for group in analysis.groups for row in group.rows if row.metric != "kernel")
    assert not any("less" in one or "1/" in one or "So " in one for one in analysis.conclusions)
    assert analysis.verdicts.comparison is not None
    assert analysis.verdicts.comparison.pairs[0].metrics == {}


def test_a_run_of_one_host_looks_as_one_that_does_not_say_where_it_was(
    on_two_hosts: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = on_two_hosts("000000/000000")
    shown = typed(capsys, "show", folder)
    for trial in (folder / "trials").iterdir():
        lines = (trial / "events.jsonl").read_text()
        (trial / "events.jsonl").write_text(lines.replace(', "host": "node0"', ""))
    summary.refresh(folder)
    assert "host" not in (folder / "summary.csv").read_text().splitlines()[0].split(",")
    assert typed(capsys, "show", folder) == shown
    assert "node0" not in shown[1]


def test_trials_that_do_not_say_are_on_the_one_host_of_those_that_do(
    on_two_hosts: Callable[[str], Path],
) -> None:
    """A run of an older version that was resumed by this one, or a trial that ended before it had begun."""
    folder = on_two_hosts("000000/000000")
    trial = min((folder / "trials").iterdir())
    lines = (trial / "events.jsonl").read_text()
    (trial / "events.jsonl").write_text(lines.replace(', "host": "node0"', ""))
    summary.refresh(folder)
    analysis = RunAnalysis.of(open_run(folder))
    assert {one.host for one in analysis.summaries} == {"node0"}
    assert analysis.verdicts.comparison is not None
    assert analysis.verdicts.comparison.notes == ()
