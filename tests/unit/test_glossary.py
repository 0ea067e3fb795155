"""The glossary has every metric, column and older name, and no source has a word that it has replaced."""

from __future__ import annotations

import csv
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import figures
import json_keys
import private_words
import pytest

from orchestrator.actions.base import Action
from orchestrator.export.older_keys import OLDER_KEYS
from orchestrator.guest.definition import GuestDefinition
from orchestrator.headline import METRICS
from orchestrator.model.patterns import Pattern
from orchestrator.records import summary
from orchestrator.records.versions import COLUMNS_2_TO_3
from orchestrator.summary import moments

GLOSSARY = (figures.ROOT / "docs" / "glossary.md").read_text()
CODE = set(re.findall(r"`([^`\n]+)`", GLOSSARY))
OLDER = {word.rstrip(":") for word in CODE} | {
    older.name for keys in OLDER_KEYS.values() for older in keys.values()
}
# What knows older names, each of which is in the glossary or docs/json.md; and the header of a snapshot.
ALIASES = {
    "docs/json.md",
    "orchestrator/actions/base.py",
    "orchestrator/export/older_keys.py",
    "orchestrator/guest/definition.py",
    "orchestrator/model/patterns/base.py",
    "orchestrator/records/versions.py",
    "orchestrator/store/snapshot_file.py",
}
ROWS = (
    summary.PolicyResult,
    summary.SecondLevelResult,
    summary.SnapshotResult,
    summary.BlameResult,
    summary.MomentGap,
    summary.Finding,
    summary.KilledProcess,
)
SOURCES = private_words.sources(figures.ROOT)
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
    assert columns <= CODE | {*moments.COLUMNS}, "those of series are in docs/run-folder.md, by series_table"


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: str(kind.__name__))
def test_every_column_that_is_written_has_an_entry(kind: Any) -> None:
    assert {field.name for field in fields(kind)} <= CODE


def test_every_older_name_has_an_entry() -> None:
    older = (Action.older_names, GuestDefinition.older_names, Pattern.older_names, *COLUMNS_2_TO_3.values())
    for names in older:
        assert {*names, *names.values()} <= OLDER


@pytest.mark.parametrize("path", sorted(one for one in CODE if one.startswith(("orchestrator/", "docs/"))))
def test_each_definition_of_ours_is_where_it_says(path: str) -> None:
    assert (figures.ROOT / path).exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(figures.ROOT)))
def test_no_source_has_a_word_that_was_replaced(path: Path) -> None:
    name = path.relative_to(figures.ROOT).as_posix()
    look = private_words.in_source if path.suffix == ".py" else private_words.in_prose
    found = list(look(path.read_text(encoding="utf-8")))
    if name in ALIASES:
        assert found, "it is no exception any more"
        found = [one for one in found if one.partition(": ")[2] not in OLDER]
    assert found == []


def test_no_key_of_a_document_is_such_a_word() -> None:
    paths = [path for path, _, _ in json_keys.documented()]
    paths += [path for keys in OLDER_KEYS.values() for path in keys]
    assert [path for path in paths if private_words.is_private_key(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "class Confusion: ...",
        "def foretold(view): ...",
        "class Result:\n    said: str = ''",
        "class Row:\n    foretold_bytes: float",
        "class Step:\n    within: float = 60.0",
        "row = {'alone': 1}",
        "row = {'blocks_held': 1}",
        "judgements = 1",
        "told = shell.run()",
        "class Pattern:\n    let_go: float = 1.0",
        "# tables that are let go\n",
        "# a port that nobody listens on\n",
    ],
)
def test_such_a_word_is_found(text: str) -> None:
    assert list(private_words.in_source(text))


@pytest.mark.parametrize("text", ["# drops to `nobody`", "alone = 1", "found = row.sole_blocker"])
def test_what_is_no_such_word_is_not(text: str) -> None:
    assert list(private_words.in_source(text)) == []


@pytest.mark.parametrize(
    "key", ["foretold[].apart", "confusion[]", "blame[].frees", "a.verdict", "steps[].made"]
)
def test_such_a_key_is_found(key: str) -> None:
    assert private_words.is_private_key(key)
    assert not private_words.is_private_key("trials[].blame[].sole_blocker")


def _without_settings(header: list[str]) -> list[str]:
    """Columns of summary.csv but for the settings in which arms differ, which docs/scenario.md has."""
    if "kernel_release" not in header:
        return header
    return header[: header.index("repeat") + 1] + header[header.index("kernel_release") :]
