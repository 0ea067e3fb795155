"""The glossary has every metric and column that committed runs have, and names modules that exist."""

from __future__ import annotations

import csv
import re

import figures
import pytest

from orchestrator.headline import METRICS

GLOSSARY = (figures.ROOT / "docs" / "glossary.md").read_text()
CODE = set(re.findall(r"`([^`\n]+)`", GLOSSARY))
TABLES = sorted((figures.ROOT / "results" / "reference").glob("*/*.csv"))


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_an_entry(metric: str) -> None:
    assert metric in CODE


@pytest.mark.parametrize("name", sorted({path.name for path in TABLES}))
def test_every_column_of_the_reference_runs_has_an_entry(name: str) -> None:
    columns: set[str] = set()
    for path in TABLES:
        if path.name == name:
            with path.open(newline="") as file:
                columns |= set(_without_settings(next(csv.reader(file))))
    assert columns <= CODE


@pytest.mark.parametrize("path", sorted(one for one in CODE if one.startswith(("orchestrator/", "docs/"))))
def test_each_definition_of_ours_is_where_it_says(path: str) -> None:
    assert (figures.ROOT / path).exists()


def _without_settings(header: list[str]) -> list[str]:
    """Columns of summary.csv but for the settings in which arms differ, which docs/scenario.md has."""
    if "kernel_release" not in header:
        return header
    return header[: header.index("repeat") + 1] + header[header.index("kernel_release") :]
