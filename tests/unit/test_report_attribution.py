"""The attribution check of the page, and what of several regions is added up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import run_dir

from orchestrator import summary
from orchestrator.analysis.arms import ArmView, RunView, TrialView, view_run
from orchestrator.analysis.attribution import (
    CheckedSnapshot,
    attribution_check,
    attribution_check_as_json,
    attribution_check_columns,
    attribution_check_rows,
    attributions,
)
from orchestrator.analysis.conclusions import conclusions
from orchestrator.analysis.pinning import pinning_table, pinning_view
from orchestrator.records.summary import BlameResult, SnapshotResult
from orchestrator.store import open_run
from orchestrator.summary import TrialSummary

__all__ = ["run_dir"]


def result(**values: object) -> SnapshotResult:
    known: dict[str, object] = dict.fromkeys(SnapshotResult.__annotations__, 0)
    words = {"snapshot": "after", "injected": "", "expected": "", "after": "unplug", "stopped_seconds": None}
    return SnapshotResult(**(known | words | values))  # type: ignore[arg-type]  # by name


def arm_view(index: int, name: str, one: SnapshotResult | None, *rows: BlameResult) -> ArmView:
    gaps = {} if one else {"blocks_plugged_after": "no unplug step ended"}
    snapshots = (one,) if one else ()
    made = TrialSummary(
        "r", f"{name}-01", name, 1, {}, "", "completed", {}, gaps, "", "after", (), snapshots, rows
    )
    return ArmView(index, name, {}, (TrialView(made, None),))


def class_row(name: str, blocks: int, sole: int, region: str = "vmem0") -> BlameResult:
    return BlameResult("after", region, name, "", blocks, blocks, sole, freeable=sole, attributed=sole)


def test_regions_are_added_up_and_the_sole_blocker_of_most_counts(run_dir: Path) -> None:
    arms = (
        arm_view(
            0,
            "two",
            result(blocks_plugged=20, blocks_pinned=18, blocks_unexplained=2),
            class_row("page_table", 9, 2),
            class_row("slab", 5, 3),
            class_row("page_table", 1, 0, "vmem1"),
            class_row("free", 99, 0),
            BlameResult("before", "vmem0", "kernel", "", 99, 99, 99, freeable=99, attributed=99),
        ),
        arm_view(1, "tied", result(blocks_plugged=4, blocks_pinned=4), class_row("slab", 4, 0)),
        arm_view(2, "empty", result()),
        arm_view(3, "none", None),
    )
    view = pinning_view(arms[0])
    assert view is not None
    best = view.most_freeable
    assert best is not None
    assert (best.frame_class, best.freeable) == ("slab", 3)
    table = pinning_table(arms)
    assert table is not None
    rows = {row.label: row.cells for body in table.bodies for row in body}
    assert [(cell.blocks, cell.sole_blocker) for cell in rows["page tables"][:2]] == [("10", "2"), ("", "")]
    assert (rows["free"][0].blocks, rows["free"][0].sole_blocker) == ("99", "")
    assert "other kernel memory" not in rows
    assert [cell.blocks for cell in rows["unexplained"]] == ["2", "0", "0", ""]
    assert [arm.sentence for arm in table.arms] == [
        "Without slab, 3 of 18 pinned blocks would be free; no other class frees more.",
        "No single class frees any of 4 pinned blocks.",
        "No class pins a block.",
        "",
    ]
    assert table.arms[3].why_missing == "no unplug step ended"
    run = open_run(run_dir)
    assert conclusions(RunView(run, arms))[-1] == (
        "The class without which most pinned blocks would be free: "
        "slab (3 of 18) with two and none (0 of 4) with tied."
    )
    assert conclusions(RunView(run, arms[1:]))[-1].startswith("No single class frees one")
    assert pinning_table(arms[3:]) is None


def test_the_attribution_check_is_plain_numbers(run_dir: Path) -> None:
    run = open_run(run_dir)
    rows = attribution_check_as_json(view_run(run, summary.load(run)))
    assert json.loads(json.dumps(rows)) == rows
    assert [row["trial"] for row in rows] == ["6.12-01", "7.3-pt-reclaim-01"]
    assert rows[0] == {
        "trial": "6.12-01",
        "arm": "6.12",
        "snapshot": "after-unplug",
        "injected": ["sparse-touch"],
        "expected": ["page_table"],
        "blocks_still_plugged": 213,
        "blocks_expected": 203,
        "blocks_expected_share": 203 / 213,
        "blocks_unexplained": 0,
        "blocks_unexplained_share": 0.0,
        "contained": {"page_table": 203, "slab": 14, "free": 213},
        "attributed": {"page_table": 203, "slab": 10, "free": 0},
    }


def checked(
    expected: str, still_plugged: int, contained: dict[str, int], attributed: dict[str, int]
) -> CheckedSnapshot:
    names = tuple(expected.split())
    return CheckedSnapshot(
        "t", "a", "s", ("w",), names, still_plugged, 0, None, 0, None, contained, attributed
    )


def test_recall_and_precision_are_of_the_class_itself_as_attributed_and_as_contained() -> None:
    rows = [
        checked(
            "kernel_stack slab", 174, {"kernel_stack": 129, "slab": 170}, {"slab": 55, "page_table": 115}
        ),
        checked("page_table", 212, {"page_table": 203, "slab": 4, "kernel_stack": 1}, {"page_table": 203}),
        checked("pinned", 10, {}, {}),
    ]
    rows.append(checked("slab", 138, {"slab": 131, "page_table": 2}, {"slab": 129, "page_table": 2}))
    stack, table, pinned, slab = attributions(rows)
    assert (stack.frame_class, stack.trials, stack.recall_attributed, stack.precision_attributed) == (
        "kernel_stack",
        1,
        0.0,
        None,
    ), "no block is attributed to it"
    assert (stack.recall_contained, stack.precision_contained) == (129 / 174, 129 / 130)
    assert (slab.recall_attributed, slab.precision_contained) == (129 / 138, 301 / 305), (
        "stacks bring slab along"
    )
    assert (table.recall_attributed, table.precision_attributed) == (203 / 212, 203 / 320), (
        "115 are of kernel stacks"
    )
    assert (pinned.recall_attributed, pinned.precision_contained) == (0.0, None)


def test_a_class_that_is_everywhere_has_recall_and_no_precision() -> None:
    """The trivial answer, "slab is in every block", is found out."""
    rows = [checked(name, 100, {"slab": 100}, {"slab": 100}) for name in ("slab", "network", "pinned")]
    slab = attributions(rows)[0]
    assert slab.recall_attributed == 1.0
    assert slab.precision_attributed == pytest.approx(1 / 3)


def test_a_class_that_was_expected_and_not_found_has_its_column(run_dir: Path) -> None:
    one = result(blocks_plugged=3, blocks_expected=0, blocks_unexplained=1, expected="network pinned")
    none_left = result(expected="slab", blocks_expected=0)
    arms = (
        arm_view(0, "a", one, class_row("free", 3, 0), class_row("kernel", 2, 2)),
        arm_view(1, "b", none_left),
        arm_view(2, "c", result(blocks_plugged=3)),
    )
    view = RunView(open_run(run_dir), arms)
    rows = attribution_check(view)
    assert [row.arm for row in rows] == ["a", "b"]
    assert (rows[1].blocks_expected_share, rows[1].blocks_unexplained_share) == (None, None)
    columns = attribution_check_columns(rows)
    assert columns == ["network", "pinned", "slab", "kernel"]
    first = attribution_check_rows(view, rows, columns)[0]
    assert [(cell.contained, cell.expected) for cell in first.cells] == [
        ("0", True),
        ("0", True),
        ("0", False),
        ("2", False),
    ]
    assert (first.expected, first.unexplained_share) == ("network buffers or DMA-pinned memory", "33.3 %")
