"""What figures of the page and of `list`, `show` and `compare` are: statistic, trials, conditions."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
from reference import ROOT

from orchestrator.analysis.arm_table import RESTORED, footnotes, signs_of
from orchestrator.analysis.attribution import attribution_check_rows, attribution_rows
from orchestrator.analysis.conclusions import FIRST
from orchestrator.analysis.conditions import NOT_COMPARABLE
from orchestrator.analysis.differences import correction_note, difference_groups, label_of
from orchestrator.analysis.pinning import pinning_table, pinning_view
from orchestrator.analysis.planned_steps import planned_steps, step_in_words
from orchestrator.analysis.run import RunAnalysis
from orchestrator.export.run_row import RunRow
from orchestrator.records.plan import PlanRecord
from orchestrator.stats import Significance
from orchestrator.store import open_run
from orchestrator.summary import saved
from orchestrator.summary.typical import typical
from orchestrator.verdict import PairOfArms


@cache
def analysis(name: str) -> RunAnalysis:
    return RunAnalysis.open(ROOT / name)


def pair_of(name: str) -> PairOfArms:
    comparison = analysis(name).verdicts.comparison
    assert comparison is not None
    return comparison.pairs[0]


def test_a_list_and_show_have_one_figure() -> None:
    run = open_run(ROOT / "quickstart")
    headline = RunRow.of(run, saved(run)).headline
    assert headline.startswith("unplugged (median): ")
    said = next(sentence for sentence in analysis("quickstart").conclusions if "unplug took" in sentence)
    for part in headline.partition(": ")[2].split(", "):
        arm, share = part.split(" ", 1)
        assert f"({share}) with {arm}" in said


def test_the_middle_one_of_those_that_count() -> None:
    arm = analysis("quickstart").arms[0]
    (first, *rest) = [trial.summary for trial in arm.trials]
    metric = "unplug_achieved_bytes"
    least = replace(first, metrics={**first.metrics, metric: 1})
    assert typical([least], metric) == 1
    assert typical([replace(least, left_out="is a warm-up"), *rest], metric) == typical(rest, metric) != 1
    worst = [replace(one, metrics={**one.metrics, "kernel_log_complaints": n}) for n, one in enumerate(rest)]
    assert typical([*worst, replace(first, left_out="x")], "kernel_log_complaints") == len(rest) - 1


def test_an_arm_says_of_what_its_figures_are_medians() -> None:
    assert analysis("quickstart").statistic == ("Figures of an arm are medians of 5 trials of 5 boots.",)


@pytest.mark.parametrize("name", ["quickstart", "pmd"])
def test_each_significant_difference_is_in_the_first_table_or_in_a_sentence(name: str) -> None:
    said = " ".join(analysis(name).conclusions)
    shown = {metric for metric, _ in FIRST} | {"unplug_shortfall_bytes"}
    found = pair_of(name).metrics
    rest = {metric for metric in found if found[metric].significance is Significance.SIGNIFICANT} - shown
    assert rest
    named = {metric for metric in rest if label_of(metric) in said}
    assert named == rest or f"and {len(rest - named)} more" in said
    assert "host_rss_bytes" in named or name != "quickstart"


def test_what_pins_the_blocks_has_the_basis_of_the_metrics() -> None:
    arms = analysis("quickstart").arms
    for arm in arms:
        view = pinning_view(arm)
        assert view is not None
        tables = view.classes["page_table", ""]
        assert tables.blocks == arm.typical("blocks_pinned_page_table")
        assert tables.sole_blocker == arm.typical("blocks_pinned_page_table_only")
        assert view.pinned == arm.typical("blocks_pinned")
    table = pinning_table(arms)
    assert table is not None
    for head in table.arms:
        assert head.note.startswith("median of 5 trials of 5 boots, at unplugged")
        assert "(sole blocker of " in head.sentence, "more blocks are freed than those: with memmap"


def test_why_an_interval_and_significance_may_disagree() -> None:
    pair = pair_of("quickstart")
    note, apart = correction_note(pair, 0.05)
    assert apart
    assert f"{pair.tested} metrics at once (Holm), is at most 5%" in note
    for metric, one in pair.metrics.items():
        excludes = one.interval is not None and not one.interval.low <= 0 <= one.interval.high
        odd = excludes and one.significance is Significance.NOT_SIGNIFICANT
        assert (label_of(metric) in note) == odd, metric
    assert correction_note(pair_of("second-level-levers"), 0.05) == ("", False), "there is no interval"


def test_compare_marks_what_the_table_of_arms_marks() -> None:
    quickstart = analysis("quickstart")
    assert quickstart.verdicts.comparison is not None
    groups = difference_groups(quickstart.verdicts.comparison, pair_of("quickstart"))
    compared = {row.metric: row.note for group in groups for row in group.rows}
    shown = {row.metric: row.note for group in quickstart.groups for row in group.rows}
    assert compared["host_rss_bytes"] == RESTORED
    assert compared["unplug_seconds"] == NOT_COMPARABLE
    assert all(signs_of(note) == signs_of(shown[metric]) for metric, note in compared.items())
    assert signs_of(RESTORED) != signs_of(NOT_COMPARABLE)
    assert footnotes(compared.values()) == [f"† {NOT_COMPARABLE}", f"‡ {RESTORED}"]


def test_blocks_that_do_not_contain_the_class_they_count_for_are_told() -> None:
    quickstart = analysis("quickstart")
    told = attribution_check_rows(quickstart.view, quickstart.attribution_check, ())
    for row, words in zip(quickstart.attribution_check, told, strict=True):
        assert row.contained["page_table"] < row.blocks_expected, "some hold memmap only"
        assert words.indirectly == str(row.blocks_expected - row.contained["page_table"])
    several = replace(
        quickstart.attribution_check[0], blocks_expected=54, contained={"page_table": 50, "anonymous": 3}
    )
    (words,) = attribution_check_rows(quickstart.view, [several], ())
    assert words.indirectly == "at least 1"
    (words,) = attribution_check_rows(quickstart.view, [replace(several, blocks_expected=53)], ())
    assert words.indirectly == "", "these may all contain one of the classes"


def test_why_there_is_no_precision_is_told() -> None:
    blame = analysis("blame")
    reasons = [
        reason
        for row in attribution_rows(blame.attributions, blame.attribution_check)
        for reason in row.reasons
    ]
    assert "network buffers: no precision as contained, since no block contains it" in reasons
    assert "kernel stacks: no precision as attributed, since no block is attributed to it" in reasons
    lacking = sum(
        row.cells.count("n/a") for row in attribution_rows(blame.attributions, blame.attribution_check)
    )
    assert lacking == len(reasons) > 0
    quickstart = analysis("quickstart")
    (row,) = attribution_rows(quickstart.attributions, quickstart.attribution_check)
    assert "every trial injected it" in row.reasons[0]


def test_steps_of_all_arms_are_one_list() -> None:
    steps = planned_steps(open_run(ROOT / "second-level-levers").plan)
    words = [(step.text, step.arms) for step in steps]
    assert words[0] == ("plug to 256 MiB", ())
    assert ("exec dd if=/dev/zero of=/dev/shm/fill bs=1M count=320", ()) in words
    assert ("let the guest report free pages", ("reporting",)) in words
    some = dict(step for step in words if step[1])
    assert set(some["inflate the balloon by 600 MiB"]) == {"balloon", "balloon-and-slot"}
    assert set(some["unplug to 0 B"]) == {"unplug", "unplug-slots"}
    assert words[-1] == ("snapshot host-unplugged of the host", ())
    for arm in ("balloon", "reporting", "unplug"):
        own = [text for text, arms in words if not arms or arm in arms]
        trial = next(one for one in open_run(ROOT / "second-level-levers").plan.trials if one.arm == arm)
        assert own == [step_in_words(step) for step in trial.steps or ()]


def test_a_step_that_cannot_be_read_is_told_as_the_plan_has_it() -> None:
    for step in ({"action": "melt", "params": {"to": 1}}, {"action": "plug", "params": {}}, "x"):
        assert step_in_words(step) == json.dumps(step)  # type: ignore[arg-type]  # any JSON
    assert (
        step_in_words({"action": "exec", "params": {"argv": ["\x1b[2J"]}})
        == "exec \N{REPLACEMENT CHARACTER}[2J"
    )
    assert planned_steps(PlanRecord()) == ()
