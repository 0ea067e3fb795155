"""What a policy would free against what a live kernel did: on runs of real guests, and made up."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import html
from synthetic_run import ARMS, write_run

from orchestrator import summary
from orchestrator.analysis.arms import ArmView, RunView, TrialView, view_run
from orchestrator.analysis.model_check import ModelCheck, model_checks
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.page import build_report
from orchestrator.stats import FEWEST
from orchestrator.store import open_run
from orchestrator.summary import PolicyResult, TrialSummary
from orchestrator.units import KIB, MIB, PAGE_BYTES

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def reference(name: str) -> list[ModelCheck]:
    run = open_run(REFERENCE / name)
    return model_checks(view_run(run, summary.load(run)))


@pytest.mark.parametrize(("name", "mib"), [("quickstart", 100), ("pmd", 400)])
def test_empty_predicts_within_5_percent_what_the_7x_kernel_frees(name: str, mib: int) -> None:
    """Real guests: the reference runs behind the README's tables."""
    (row,) = reference(name)
    assert (row.first, row.second) == ("linux-6.12", "linux-7.x")
    assert row.modelled_bytes == pytest.approx(mib * MIB, rel=0.001)
    assert row.modelled_bytes == pytest.approx(row.freed_bytes, rel=0.05)
    assert row.relative_error == pytest.approx(
        row.modelled_bytes / row.freed_bytes - 1, abs=1e-5
    )  # mean of pairs
    assert (row.interval is None) == (row.pairs < FEWEST)
    assert row.left_bytes <= 4 * KIB


@pytest.mark.parametrize("name", ["allocators", "blame"])
def test_nothing_is_told_where_arms_differ_in_something_else(name: str) -> None:
    assert reference(name) == []


def trial(kernel: str, repeat: int, tables: int, empty: int, **differs: str) -> TrialSummary:
    result = PolicyResult("loaded", "empty", empty, empty * 4096, 0, None, None, None, "modelled")
    return TrialSummary(
        run="r",
        trial=f"{kernel}-{repeat:02d}",
        arm=kernel,
        repeat=repeat,
        differs={"kernel": kernel, **differs},
        kernel_release=kernel,
        outcome="completed",
        metrics={"guest_page_tables_total": tables},
        gaps={},
        tables_snapshot="loaded",
        policies=(result,),
    )


def view(tmp_path: Path, *arms: list[TrialSummary]) -> RunView:
    run = open_run(write_run(tmp_path, trials=0))
    shown = (
        ArmView(index, trials[0].arm, trials[0].differs, tuple(TrialView(one, None) for one in trials))
        for index, trials in enumerate(arms)
    )
    return RunView(run, tuple(shown))


def test_pairs_are_of_the_same_repeat_and_have_an_interval(tmp_path: Path) -> None:
    new = [trial("new", 1, 1000, 10), trial("new", 2, 1100, 10), trial("new", 3, 1000, 10)]
    old = [trial("old", 2, 3100, 2100), trial("old", 1, 3000, 2000), trial("old", 4, 9000, 8000)]
    (row,) = model_checks(view(tmp_path, new, old))
    # The kernel that keeps empty tables comes first, wherever the scenario has it.
    assert (row.first, row.second, row.pairs) == ("old", "new", 2)
    assert (row.modelled_bytes, row.freed_bytes, row.left_bytes) == (2050 * 4096, 2000 * 4096, 10 * 4096)
    assert row.relative_error == pytest.approx(0.025)
    assert row.interval is None, "of two pairs"
    assert "an error of 2.50 %" in row.sentence
    many = [
        [trial(name, number, tables + 20 * number, freed) for number in range(1, 6)]
        for name, tables, freed in (("new", 1000, 10), ("old", 3010, 2050))
    ]
    (row,) = model_checks(view(tmp_path / "many", *many))
    assert row.interval
    assert row.interval.low == row.interval.high == pytest.approx(row.relative_error)
    restores = [[replace(one, state=arm[0].arm) for one in arm] for arm in many]
    (row,) = model_checks(view(tmp_path / "restores", *restores))
    assert row.interval is None, "all pairs are of the same two boots"
    left_out = [replace(one, left_out="did not complete") for one in new]
    assert model_checks(view(tmp_path / "2", left_out, old)) == []


def test_a_kernel_that_frees_nothing_is_not_taken_for_a_model_that_is_wrong(tmp_path: Path) -> None:
    (row,) = model_checks(view(tmp_path, [trial("a", 1, 3000, 2000)], [trial("b", 1, 3005, 1990)]))
    assert (row.relative_error, row.freed_bytes) == (None, 0)
    assert row.sentence.endswith("had 0 B less (measured): that kernel frees few of these tables.")
    assert not row.error_cell.text


def test_too_few_tables_and_other_differences_tell_nothing(tmp_path: Path) -> None:
    few = view(tmp_path / "1", [trial("a", 1, 600, 100)], [trial("b", 1, 500, 0)])
    thp = view(tmp_path / "2", [trial("a", 1, 3000, 2000, thp="never")], [trial("b", 1, 1000, 0)])
    same = view(tmp_path / "3", [trial("a", 1, 3000, 2000)], [trial("a", 1, 1000, 0)])
    assert [model_checks(one) for one in (few, thp, same)] == [[], [], []]


def test_the_page_says_which_figure_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "quickstart"
    shutil.copytree(REFERENCE / "quickstart", folder)
    page = html.document_fromstring(build_report(RunAnalysis.open(folder)).read_text(encoding="utf-8"))
    (table,) = page.xpath("//section[@id='model-check']//table")
    heads = [" ".join(cell.text_content().split()) for cell in table.xpath(".//thead//th")]
    cells = [" ".join(cell.text_content().split()) for cell in table.xpath(".//tbody//tr/*")]
    told = dict(zip(heads, cells, strict=True))
    (row,) = reference("quickstart")
    for head, value in (
        ("empty would free modelled", row.modelled_bytes),
        ("freed measured", row.freed_bytes),
    ):
        assert told[head] == f"{value / MIB:.4g} MiB {value / PAGE_BYTES:,.0f} tables"
    assert row.relative_error is not None
    assert told["error of the model"].startswith(f"{100 * row.relative_error:+.2f}")


@pytest.mark.slow
def test_arms_that_differ_in_thp_only_have_no_such_section(tmp_path: Path) -> None:
    directory = write_run(tmp_path, arms=(ARMS[0], replace(ARMS[0], name="again")))
    summary.refresh(directory)
    page = html.document_fromstring(build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8"))
    assert not page.xpath("//section[@id='model-check']")
