"""Arms and runs compared: what is a pair, what is left out, what is refused, and what is said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_run import ARMS, write_run

from orchestrator import summary
from orchestrator.analysis.differences import (
    comparison_as_json,
    heading,
    missing_sentences,
    significance_sentences,
)
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli import compare as compare_module
from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.export.older_keys import with_older_keys
from orchestrator.metric import COST_PHASES
from orchestrator.stats import Significance
from orchestrator.store import SCHEMA_VERSION, open_run
from orchestrator.summary import CATALOGUE
from orchestrator.verdict import ArmFigures, RunFigures, TrialFigures, compare_arms, compare_runs, figures_of
from orchestrator.verdict.comparability import VARIES

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
FACTS = dict.fromkeys(("host_cpu", "host_kernel", "host_thp", "qemu", "libvirt", "image"), "x")
# All parts of what an arm does: what is not said is noted.
DOES = {"guest": '"debian-13"', "machine": '{"memory": 1}', "start": '"warm"', "steps": "[]"}
RATE, TABLES = "workload_ops_per_second", "guest_page_table_bytes_end"


def arm(
    name: str, shift: float = 0, *, trials: int = 6, state: str = "s", seed: int = 1, **fields: Any
) -> ArmFigures:
    """An arm with a noisy rate, of which most is the repeat's own, and page tables moved by `shift`."""
    rng = np.random.default_rng([seed, *name.encode()])
    made = tuple(
        TrialFigures(
            f"{name}-{repeat:02d}",
            repeat,
            seed=repeat,
            state=f"{state}.{repeat}" if state else "",
            metrics={RATE: 1000 + 300 * repeat + rng.normal(0, 5), TABLES: 100 * MIB + shift},
        )
        for repeat in range(1, trials + 1)
    )
    known: dict[str, Any] = {"kernel": "6.12", "accel": "tcg", "does": DOES}
    return ArmFigures(name, trials=made, **(known | fields))


def run(*arms: ArmFigures, name: str = "r1", **fields: Any) -> RunFigures:
    known: dict[str, Any] = {"scenario": "s", "schema_version": SCHEMA_VERSION, "commit": "c", "facts": FACTS}
    return RunFigures(run=name, arms=arms, **(known | fields))


def test_trials_of_one_state_are_pairs_and_a_planted_difference_is_found() -> None:
    found = compare_arms(run(arm("a"), arm("b", -8 * MIB), arm("c")))
    assert [(pair.first.name, pair.second.name, pair.pairing) for pair in found.pairs] == [
        ("a", "b", "state"),
        ("a", "c", "state"),
    ]
    planted = found.pairs[0].metrics
    assert (planted[TABLES].significance, planted[TABLES].estimate) == (Significance.SIGNIFICANT, -8 * MIB)
    assert planted[RATE].significance is Significance.NOT_SIGNIFICANT
    assert found.pairs[1].metrics[TABLES].significance is Significance.IDENTICAL
    assert "blocks_pinned" in found.pairs[0].missing
    assert set(found.pairs[0].metrics) | set(found.pairs[0].missing) == {
        metric.name for metric in CATALOGUE if metric.unit and not metric.given
    }


def test_what_makes_a_pair() -> None:
    cold = arm("a", state="")
    assert compare_arms(run(cold, arm("b", state=""))).pairs[0].pairing == "repeat"
    assert compare_arms(run(arm("a"), arm("b", state="other"))).pairs[0].pairing == "repeat"
    other_seeds = replace(cold, trials=tuple(replace(one, seed=99) for one in cold.trials))
    assert compare_arms(run(arm("b"), other_seeds)).pairs[0].pairing == "none"
    # Of two runs only the same saved guest makes a pair: they share no time.
    assert compare_runs(run(arm("a")), run(arm("a", seed=2), name="r2")).pairs[0].pairing == "state"
    assert compare_runs(run(cold), run(arm("a", state=""), name="r2")).pairs[0].pairing == "none"


def test_a_heading_stands_for_all_it_has_where_all_is_missing_for_one_reason() -> None:
    names = [f"{phase}_instructions_per_table" for phase in COST_PHASES]
    why = "no workload counted instructions"

    def said(*missing: str) -> str:
        gaps = dict.fromkeys(missing, why)
        (pair,) = compare_arms(run(arm("a", gaps=gaps), arm("b", gaps=gaps))).pairs
        (sentence,) = (one for one in missing_sentences(pair) if why in one)
        return sentence

    assert said(*names) == f"Not compared: instructions for each page table: not measured in a: {why}."
    assert said(*names[:1]).startswith("Not compared: instructions for each page table: touch: ")


def test_trials_of_one_boot_are_one_and_the_words_say_so() -> None:
    one, other = (
        replace(made, trials=tuple(replace(trial, state="key") for trial in made.trials))
        for made in (arm("a"), arm("b", -8 * MIB))
    )
    found = compare_arms(run(one, other))
    (pair,) = found.pairs
    assert (pair.pairing, pair.units) == ("state", 1)
    assert {(each.significance, each.n, each.trials) for each in pair.metrics.values()} == {
        (Significance.TOO_FEW_BOOTS, 1, 6)
    }
    assert heading(found, pair) == "b against a: 6 pairs of trials of 1 boot, paired by boot"
    assert significance_sentences(found, pair)[0].startswith(
        "6 trials of 1 boot of each arm: 1 boot to compare"
    )
    as_json = comparison_as_json(found)["pairs"][0]
    assert (as_json["boots"], as_json["trials"]) == (
        {"base": 1, "arm": 1, "pairs": 1},
        {"base": 6, "arm": 6, "pairs": 6},
    )
    # One arm from one boot against one from boots of its own: the one is in all pairs.
    (mixed,) = compare_arms(run(one, arm("b", state=""))).pairs
    assert (mixed.pairing, mixed.units) == ("repeat", 1)


def test_trials_that_come_twice_from_a_boot_average_to_one_pair() -> None:
    twice = [
        replace(made, trials=tuple(replace(one, state=f"k.{(one.repeat - 1) % 5}") for one in made.trials))
        for made in (arm("a", trials=10), arm("b", -8 * MIB, trials=10))
    ]
    (pair,) = compare_arms(run(*twice)).pairs
    rates = [[one.metrics[RATE] for one in made.trials] for made in twice]
    assert (pair.metrics[RATE].n, pair.metrics[RATE].trials) == (5, 10)
    assert pair.metrics[RATE].estimate == pytest.approx(np.mean(rates[1]) - np.mean(rates[0]))
    between = np.subtract(rates[1], rates[0])
    halves = (between[:5] + between[5:]) / 2
    assert pair.metrics[RATE].effect == pytest.approx(halves.mean() / halves.std(ddof=1))


def test_the_noise_floor_of_one_boot_is_not_known() -> None:
    restores = [
        replace(made, trials=tuple(replace(one, state="k.1") for one in made.trials))
        for made in (arm("a"), arm("again"))
    ]
    assert compare_arms(run(*restores)).noise == {}
    other = replace(restores[1], trials=tuple(replace(one, state="k.2") for one in restores[1].trials))
    means = [np.mean(made.values(RATE)) for made in (restores[0], other)]
    assert compare_arms(run(restores[0], other)).noise[RATE] == pytest.approx(abs(means[0] - means[1]))


def test_lost_trials_are_told() -> None:
    whole = arm("b", trials=8)
    gone = replace(whole, trials=(), lost={one.trial: one.boot for one in whole.trials})
    found = compare_arms(run(arm("a", trials=8), gone))
    (pair,) = found.pairs
    assert (
        "Trials of 8 of 8 boots failed (lost, timed out or not settled), against 0 of 8: significant."
        in significance_sentences(found, pair)
    )
    assert comparison_as_json(found)["pairs"][0]["lost_trials"]["significance"] == "significant"
    assert not any(
        "lost" in said
        for said in significance_sentences(found, compare_arms(run(arm("a"), arm("b"))).pairs[0])
    )


def test_a_lost_trial_takes_its_partner_out_of_the_pairs() -> None:
    whole = arm("b")
    short = replace(whole, trials=whole.trials[1:], left_out=(("b-01", "did not complete: lost"),))
    found = compare_arms(run(arm("a"), short))
    assert found.pairs[0].metrics[RATE].n == 5
    assert found.left_out == (("b-01", "did not complete: lost"),)


def test_few_boots_get_a_warning_and_no_interval() -> None:
    found = compare_arms(run(arm("a", trials=4), arm("b", 8 * MIB, trials=4)))
    (pair,) = found.pairs
    assert {one.significance for one in pair.metrics.values()} == {Significance.TOO_FEW_BOOTS}
    said = significance_sentences(found, pair)[0]
    assert said.startswith("4 trials of 4 boots of each arm: 4 boots to compare, too few for intervals")
    assert "At least 5 boots needed" in said
    assert comparison_as_json(found)["pairs"][0]["metrics"][TABLES]["interval"] is None


def test_identical_arms_are_the_noise_floor_and_no_difference() -> None:
    found = compare_arms(run(arm("a"), arm("again")))
    assert set(found.noise) == {RATE, TABLES}
    assert found.noise[TABLES] == 0
    assert 0 < found.noise[RATE] < 30  # of pairs; the repeats themselves differ by hundreds
    assert Significance.SIGNIFICANT not in {one.significance for one in found.pairs[0].metrics.values()}
    assert not compare_arms(run(arm("a"), arm("b", does={**DOES, "steps": "[1]"}))).noise
    assert not compare_arms(run(arm("a"), arm("b", kernel="7.3"))).noise


@pytest.mark.parametrize(
    ("other", "varies", "why"),
    [
        (run(arm("a", kernel="7.3")), "kernel", "kernel of a: 6.12 against 7.3"),
        (run(arm("a", accel="kvm")), "", "acceleration of a: tcg against kvm"),
        (run(arm("a"), schema_version=0), "", f"schema version: {SCHEMA_VERSION} against 0"),
        (run(arm("a"), scenario="t"), "", "scenario: s against t"),
        (run(arm("a", does={**DOES, "steps": "[1]"})), "steps", "steps of a: [] against [1]"),
    ],
)
def test_runs_that_differ_in_more_are_refused_unless_forced(other: RunFigures, varies: str, why: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(why)):
        compare_runs(run(arm("a")), other)
    assert compare_runs(run(arm("a")), other, force=True).forced == (why,)
    assert comparison_as_json(compare_runs(run(arm("a")), other, force=True))["forced"] == [why]
    if varies:  # declared to be the question
        assert compare_runs(run(arm("a")), other, varies=[varies]).forced == ()
    else:
        with pytest.raises(BadInputError):
            compare_runs(run(arm("a")), other, varies=VARIES)


def test_within_a_run_the_kernel_may_be_what_arms_differ_in_but_not_how_they_ran() -> None:
    assert compare_arms(run(arm("a"), arm("b", kernel="7.3"))).forced == ()
    with pytest.raises(BadInputError, match="acceleration of b"):
        compare_arms(run(arm("a"), arm("b", accel="kvm")))


def test_arms_and_bases_that_are_not_there() -> None:
    with pytest.raises(BadInputError, match="no arm in common"):
        compare_runs(run(arm("a")), run(arm("b"), name="r2"))
    with pytest.raises(BadInputError, match="has no arm 'x'"):
        compare_arms(run(arm("a")), base="x")
    assert compare_arms(run(arm("a"), arm("b")), base="b").pairs[0].second.name == "a"
    notes = compare_runs(run(arm("a"), arm("b")), run(arm("a"), name="r2", commit="d")).notes
    assert notes == ("arm b is in one of the runs only", "commit c against d")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for name in ("20260101-one", "20260102-two"):
        summary.refresh(write_run(root, name, repeats=2, snapshots=False))
    return root


def typed(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_compare_of_one_run_fits_72_columns(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.compare.out.width", 72)
    monkeypatch.setenv("COLUMNS", "72")
    code, out, _ = typed(capsys, "compare", "20260101", "--results", results)
    assert code == 0
    table = [line for line in out.splitlines() if "MiB" in line or line.startswith("  ")]
    assert table
    assert max(map(len, table)) <= 72
    assert "2 trials of 2 boots of each arm: 2 boots to compare, too few" in " ".join(out.split())
    (kept,) = [line.split() for line in out.splitlines() if line.strip().startswith("shortfall")]
    assert kept == ["shortfall", "426", "MiB", "422", "MiB", "-4", "MiB"]


def after(printed: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    printed()
    return capsys.readouterr().out


def test_run_ends_with_what_compare_says(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = results / "20260101-one"
    _, compared, _ = typed(capsys, "compare", directory)
    assert "426 MiB" in compared
    told, *reasons = compared.split("Not compared: ")
    assert after(lambda: compare_module.print_run_comparison(RunAnalysis.open(directory)), capsys) == told
    assert reasons, "the gaps that the run recorded"
    assert all(": not measured in " in reason or "counts" in reason for reason in reasons)
    _, as_json, _ = typed(capsys, "compare", directory, "--json")
    of_run = {"comparison": compare_module.run_comparison_as_json(RunAnalysis.open(directory))}
    assert with_older_keys("run", of_run)["comparison"] == json.loads(as_json)["comparisons"][0]


def test_a_run_of_many_arms_ends_with_sentences_and_says_where_the_tables_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = tuple(replace(ARMS[0], name=f"arm-{number}") for number in range(5))
    directory = write_run(tmp_path, arms=arms, snapshots=False)
    summary.refresh(directory)
    out = after(lambda: compare_module.print_run_comparison(RunAnalysis.open(directory)), capsys)
    assert out.count("to compare, too few for intervals.") == 4
    assert "426 MiB" not in out
    assert out.splitlines()[-1].startswith(f"next: orchestrator compare {directory}")
    alone = write_run(tmp_path, "alone", arms=ARMS[:1], snapshots=False)
    assert after(lambda: compare_module.print_run_comparison(RunAnalysis.open(alone)), capsys) == ""


def test_compare_of_two_runs_as_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "compare", "20260101", "20260102", "--results", results, "--json")
    assert code == 0
    (found,) = json.loads(out)["comparisons"]
    assert (found["base"], found["other"]) == ("20260101-one", "20260102-two")
    assert [pair["arm"] for pair in found["pairs"]] == [one.name for one in ARMS]
    assert {pair["pairing"] for pair in found["pairs"]} == {"none"}


@pytest.mark.parametrize(
    "words", [("a", "b", "--base", "x"), ("a", "--varies", "kernel"), (), ("a", "--varies", "accel")]
)
def test_bad_words_are_told(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, "compare", *words)[0] == 2


def test_the_command_offers_what_the_comparison_knows() -> None:
    assert compare_module.VARIES == VARIES


def test_a_trial_whose_memory_still_moved_is_left_out(tmp_path: Path) -> None:
    directory = write_run(tmp_path, repeats=2, snapshots=False)
    path = directory / "trials" / "6.12-01" / "events.jsonl"
    path.write_text(path.read_text().replace('"outcome":"partial"', '"outcome":"timeout"').replace(
        '"outcome": "partial"', '"outcome": "timeout"'))  # fmt: skip
    summary.refresh(directory)
    run = open_run(directory)
    assert summary.saved(run) == summary.summarise_run(run)
    figures = figures_of(run, summary.load(run))
    assert figures.arms[0].left_out == (("6.12-01", "had not settled: unplug to 0 B"),)
    assert [one.trial for one in figures.arms[0].trials] == ["6.12-02"]


@pytest.fixture(scope="module")
def summarised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its tables; copy it."""
    directory = write_run(tmp_path_factory.mktemp("summarised"))
    summary.refresh(directory)
    return directory


@pytest.mark.parametrize("name", ["summary.csv", "policies.csv", "snapshots.csv", "blame.csv"])
@pytest.mark.parametrize("column", range(6))
def test_tables_that_lack_a_column_are_made_again(
    summarised: Path, tmp_path: Path, name: str, column: int
) -> None:
    """As an older version may have written them."""
    run = open_run(shutil.copytree(summarised, tmp_path / summarised.name))
    table = pd.read_csv(run.directory / name, dtype=str, keep_default_na=False)
    table.drop(columns=table.columns[column]).to_csv(run.directory / name, index=False)
    loaded = summary.load(run)
    assert [one.trial for one in loaded] == ["6.12-01", "7.3-pt-reclaim-01"]
    assert all(one.metrics for one in loaded)


def test_a_run_that_an_older_version_wrote_can_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = "run-without-left-out"
    reference = tmp_path / kept
    shutil.copytree(Path(__file__).parent / "golden" / kept, reference)
    assert "left_out" not in (reference / "summary.csv").read_text().splitlines()[0]
    code, out, _ = typed(capsys, "compare", kept, "--results", tmp_path)
    assert code == 0
    assert "1 trial of 1 boot of each arm: 1 boot to compare, too few" in out
    assert typed(capsys, "report", kept, "--results", tmp_path)[0] == 0


def test_a_run_of_a_version_that_cannot_be_read_says_which_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_run(tmp_path, "old", trials=0)
    meta = json.loads((directory / "meta.json").read_text()) | {"schema_version": 0}
    (directory / "meta.json").write_text(json.dumps(meta))
    for verb in ("compare", "report", "show"):
        code, _, err = typed(capsys, verb, "old", "--results", tmp_path)
        assert code == 2
        assert "schema version 0" in err
