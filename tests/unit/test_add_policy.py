"""A policy is one file: it is put beside the others, and is seen wherever policies are asked or listed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic import sparse_guest

from orchestrator.cli import main
from orchestrator.model import policies
from orchestrator.model.blocks import map_memory
from orchestrator.model.policies import POLICIES, OverSnapshot, OverTrace, OverTree, StateView
from orchestrator.model.second_level_counts import SecondLevelCounts
from orchestrator.model.second_level_tree import decode_tree
from orchestrator.summary.snapshots import counterfactuals

SOURCE = '''"""Free every other table."""

import numpy as np

from orchestrator.model.compiled import TAKES_NONE
from orchestrator.model.policies.base import Choice, OverSnapshot, OverTrace, OverTree


class EveryOther(OverSnapshot, OverTrace, OverTree, name="every_other"):
    """Frees every other table."""

    evicts_in_use = False
    functions = TAKES_NONE

    def choose(self, state, rng, budget_tables):
        freed = np.arange(len(state.tables)) % 2 == 0
        return Choice(freed, to_move=np.zeros_like(freed))

    def state(self, trace, budget_tables, seed):
        return (0,)

    def zaps(self, tree):
        return np.arange(len(tree.pfn)) % 2 == 0
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a policy whose file is in a folder of the package."""
    (tmp_path / "every_other.py").write_text(SOURCE)
    POLICIES.names()  # those that there are, before they are copied
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(tmp_path)])
    monkeypatch.setattr(POLICIES, "_loaded", False)
    monkeypatch.setattr(POLICIES, "_things", dict(POLICIES._things))
    yield "every_other"
    monkeypatch.undo()
    del sys.modules[f"{policies.__name__}.every_other"]


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["model", *argv])
    assert not end.value.code
    return capsys.readouterr().out


def test_one_file_is_seen_everywhere(added: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = [
        one for one in json.loads(said(capsys, "policies", "--json"))["policies"] if one["name"] == added
    ]
    assert row == {"name": added, "over": ["snapshot", "trace", "tree"], "what": "Frees every other table."}
    assert added in said(capsys, "policies")
    for question in (OverSnapshot, OverTrace, OverTree):
        assert added in question.names()

    state = StateView.of(sparse_guest(100))
    (of_snapshot,) = [
        one for one in counterfactuals(state, map_memory(state.snapshot), seed=0) if one.policy == added
    ]
    assert of_snapshot.tables_freed == -(-len(state.tables) // 2)
    guest = json.loads(said(capsys, "guest", "sparse", "--set", "span=64MiB", "--json"))
    assert added in {one["policy"] for one in guest["modelled"]}

    trace = str(tmp_path / "t.npz")
    said(capsys, "trace", "phases", "-o", trace, "--set", "size=64MiB", "--set", "touches=50")
    argv = (trace, "--budget", "1MiB", "--action", "drop", "--json")
    compared = {row["policy"]: row for row in json.loads(said(capsys, "compare", *argv))["modelled"]}
    assert compared[added]["misses"] == compared["empty"]["misses"] > 0
    replayed = json.loads(said(capsys, "replay", trace, "--policy", added, *argv[1:]))
    assert replayed["modelled"]["misses"] == compared[added]["misses"]

    nothing = np.empty((0, 512), dtype=np.uint64)
    tree = decode_tree(np.empty(0, np.int64), nothing, np.empty(0, np.int64), "EPT")
    assert SecondLevelCounts.of(tree).freed[added] == 0
