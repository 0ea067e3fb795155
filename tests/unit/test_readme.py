"""The README's figures are those of the committed reference run, and its commands exist."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from orchestrator.cli.main import VERBS
from orchestrator.units import MIB

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("row", "metric", "mib"),
    [
        ("guest page tables at the end", "guest_page_table_bytes_end", True),
        ("table pages, with everything loaded", "guest_page_tables_total", False),
        ("of these empty", "guest_page_tables_empty", False),
        ("given back of 1,536 MiB asked for", "unplug_achieved_bytes", True),
        ("2 MiB blocks that stayed", "blocks_plugged_after", False),
        ("of these, hold a page-table page", "blocks_pinned_page_table", False),
        ("balloon: taken of 256 MiB asked for", "balloon_achieved_bytes", True),
    ],
)
def test_the_table_is_the_reference_runs(row: str, metric: str, mib: bool) -> None:
    with (ROOT / "results" / "reference" / "quickstart" / "summary.csv").open() as file:
        arms = {line["arm"]: float(line[metric]) for line in csv.DictReader(file)}
    (written,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \| (.*) \|$", README, re.MULTILINE)
    expected = [arms["linux-6.12"], arms["linux-7.x"]]
    shown = [f"{value / MIB:,.1f} MiB" if mib else f"{value:,.0f}" for value in expected]
    assert [cell.strip("*") for cell in written] == shown


def figures(kind: str, row: dict[str, str], column: str) -> str:
    """A cell of the reference run of scenarios/pmd.yaml, by arm and snapshot or policy."""
    with (ROOT / "results" / "reference" / "pmd" / f"{kind}.csv").open() as file:
        (found,) = [line for line in csv.DictReader(file) if row.items() <= line.items()]
    return f"{int(found[column]):,}"


@pytest.mark.parametrize(
    ("row", "kind", "key", "column"),
    [
        ("last-level tables that map nothing", "policies", {"policy": "empty"}, "tables_freed"),
        ("blocks that stayed, of 2 MiB", "snapshots", {}, "blocks_plugged"),
        ("of these, page tables account for", "snapshots", {}, "blocks_expected"),
        ("unexplained", "snapshots", {}, "blocks_unexplained"),
        (
            "*modelled:* would come free without empty last-level tables",
            "policies",
            {"policy": "empty"},
            "blocks_freed",
        ),
        (
            "*modelled:* without empty tables of all levels",
            "policies",
            {"policy": "empty_all_levels"},
            "blocks_freed",
        ),
        (
            "*modelled:* with tables moved out of the way",
            "policies",
            {"policy": "migrate"},
            "blocks_freed_if_moved",
        ),
        ("*modelled:* with the process ended", "policies", {"policy": "process_exit"}, "blocks_freed"),
    ],
)
def test_the_second_table_is_the_reference_runs(
    row: str, kind: str, key: dict[str, str], column: str
) -> None:
    rows = re.findall(rf"^\| {re.escape(row)} \| (.*) \| (.*) \|$", README, re.MULTILINE)
    at = {"snapshot": "unplugged", **key}
    expected = [figures(kind, {**at, "trial": f"{arm}-01"}, column) for arm in ("linux-6.12", "linux-7.x")]
    assert expected in [[cell.strip("*") for cell in cells] for cells in rows]


def test_what_came_free_is_the_difference_of_two_snapshots() -> None:
    (written,) = re.findall(r"^\| came free when it did end \| (.*) \| (.*) \|$", README, re.MULTILINE)

    def plugged(arm: str, snapshot: str) -> int:
        return int(figures("snapshots", {"trial": f"{arm}-01", "snapshot": snapshot}, "blocks_plugged"))

    arms = ("linux-6.12", "linux-7.x")
    assert list(map(int, written)) == [
        plugged(arm, "unplugged") - plugged(arm, "process-ended") for arm in arms
    ]


def test_every_verb_it_names_exists() -> None:
    named = set(re.findall(r"^(?:\./bootstrap )?orchestrator ([a-z]+)", README, re.MULTILINE))
    assert named <= set(VERBS)
    assert {"run", "doctor", "clean"} <= named


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_what_was_injected_and_found_is_the_reference_runs() -> None:
    with (ROOT / "results" / "reference" / "blame" / "snapshots.csv").open() as file:
        found = {line["trial"]: line for line in csv.DictReader(file) if line["snapshot"] == "unplugged"}
    written = re.findall(
        r"^\| `([a-z-]+)` \| [a-z_, ]+ \| (\d+) \| (\d+) \(([\d.]+) %\) \| (\d+) \|$",
        (ROOT / "docs" / "blame.md").read_text(),
        re.MULTILINE,
    )
    assert {f"{arm}-01" for arm, *_ in written} == set(found)
    for arm, stayed, given, share, unexplained in written:
        row = found[f"{arm}-01"]
        assert (stayed, given, unexplained) == (
            row["blocks_plugged"],
            row["blocks_expected"],
            row["blocks_unexplained"],
        )
        assert share == f"{int(given) / int(stayed):.1%}".rstrip("%")


def test_what_allocators_gave_back_is_the_reference_runs() -> None:
    with (ROOT / "results" / "reference" / "allocators" / "summary.csv").open() as file:
        given = {
            line["arm"]: f"{float(line['unplug_achieved_bytes']) / MIB:,.0f}" for line in csv.DictReader(file)
        }
    text = (ROOT / "docs" / "workloads.md").read_text()
    written = dict(re.findall(r"^\| `([a-z0-9-]+)` \| .* \| ([\d,]+) MiB \|$", text, re.MULTILINE))
    assert written == given
