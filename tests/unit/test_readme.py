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


def test_every_verb_it_names_exists() -> None:
    named = set(re.findall(r"^(?:\./bootstrap )?orchestrator ([a-z]+)", README, re.MULTILINE))
    assert named <= set(VERBS)
    assert {"run", "doctor", "clean"} <= named


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
