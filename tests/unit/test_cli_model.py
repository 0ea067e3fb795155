"""`orchestrator model`, as people call it."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli import main
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.policies import POLICIES
from orchestrator.model.replacement import REPLACEMENTS


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `orchestrator model ARGV`."""
    with pytest.raises(SystemExit) as end:
        main(["model", *argv])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_policies_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call(capsys, "policies", "--json")
    rows = json.loads(text)["policies"]
    assert code == 0
    assert {row["name"] for row in rows} == {*POLICIES.names(), *REPLACEMENTS.names()}
    assert all(row["what"] and "\n" not in row["what"] for row in rows)
    code, text, _ = call(capsys, "policies")
    assert (code, len(text.splitlines()) >= len(rows) + 1) == (0, True)


def test_counts_add_up() -> None:
    counts = ReplayCounts(
        touches=10, hits=4, cold_misses=3, rebuilt=1, decompressed=1, swapped_in=1, dropped=2
    )
    assert (counts.refaults, counts.misses, counts.evicted) == (3, 6, 2)
    assert counts.as_dict()["misses"] == 6
