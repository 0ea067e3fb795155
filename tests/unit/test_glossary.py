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
                columns |= set(next(csv.reader(file)))
    settings = {"setup", "thp", "machine", "host_setup"}
    assert {column for column in columns if column.split(".")[0] not in settings} <= CODE


@pytest.mark.parametrize("path", sorted(one for one in CODE if one.startswith(("orchestrator/", "docs/"))))
def test_each_definition_of_ours_is_where_it_says(path: str) -> None:
    assert (figures.ROOT / path).exists()
