"""Guests on a host that has too little for all: who fits, who is killed, and what makes room."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli import main
from orchestrator.model.cost import CostTable
from orchestrator.model.overcommit import (
    Answer,
    GuestClass,
    HostMemory,
    Phase,
    Question,
    answers,
)
from orchestrator.model.replay import Action
from orchestrator.scenario.overcommit import load_overcommit
from orchestrator.units import GIB

SHIPPED = Path(__file__).parents[2] / "scenarios" / "overcommit"


def ask(question: Question, policy: str, action: Action = Action.DROP, seeds: int = 2) -> Answer:
    (answer,) = answers(question, [(policy, action)], CostTable.shipped(), seeds=seeds)
    return answer


def question(memory_gib: float = 64, entries: float = 6, **host: int) -> Question:
    phases = (Phase(0, 0.1), Phase(300, 0.6), Phase(600, 0.2))
    guest = GuestClass("g", 8 * GIB, 16, phases, entries)
    return Question(HostMemory(int(memory_gib * GIB), **host), (guest,), 30.0, 1800.0, 30.0)


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, Answer]]:
    found = {}
    for path in sorted(SHIPPED.glob("*.yaml")):
        asked = load_overcommit(path)
        choices = [("none", Action.DROP), ("pressure_random", Action.COMPRESS), ("lru", Action.SWAP)]
        made = answers(asked.question, choices, CostTable.shipped(), seeds=4)
        found[path.stem] = {answer.policy: answer for answer in made}
    return found


def test_kills_fall_where_tables_are_many_and_taken(shipped: dict[str, dict[str, Answer]]) -> None:
    sparse = shipped["sparse"]
    for policy in ("pressure_random", "lru"):
        assert sparse[policy].killed.high < sparse["none"].killed.low
        assert sparse[policy].fit.low > sparse["none"].fit.high
        assert sparse[policy].added.p99.typical > 0


def test_kills_stay_where_tables_are_few(shipped: dict[str, dict[str, Answer]]) -> None:
    dense = shipped["dense"]
    assert dense["none"].killed.low >= 1
    for policy in ("pressure_random", "lru"):
        assert dense[policy].killed == dense["none"].killed
        assert dense[policy].fit == dense["none"].fit


def test_a_dense_guest_needs_two_mib_a_gib_at_each_level() -> None:
    steady = GuestClass("g", 64 * GIB, 1, (Phase(0, 1.0),), 512)
    course = ask(Question(HostMemory(1024 * GIB), (steady,), 1.0, 10.0, 1.0), "none").course
    own = 128 << 20
    backing = 2 * (64 * GIB + own) // 512  # second-level tables, and QEMU's own
    assert course.table_bytes.max() == own + backing


def test_huge_pages_save_second_level_tables_only() -> None:
    """The guest and QEMU's process have a deposited table for each; KVM maps them by leaves of 2 MiB."""
    steady = GuestClass("g", 64 * GIB, 1, (Phase(0, 1.0), Phase(5, 1.0), Phase(6, 0.5)), 512, huge_share=1)
    course = ask(Question(HostMemory(1024 * GIB), (steady,), 1.0, 30.0, 1.0), "none").course
    own = 128 << 20
    assert course.table_bytes.max() == own + (64 * GIB + own) // 512
    # They go with the pages, whatever the policy.
    assert course.table_bytes[-1] == pytest.approx(course.table_bytes.max() / 2)


def test_a_policy_takes_no_deposited_table() -> None:
    """With less memory than data and tables, swap makes room from tables in use, and there are none."""
    steady = GuestClass("g", 8 * GIB, 1, (Phase(0, 1.0),), 6, huge_share=1)
    tight = Question(HostMemory(8 * GIB, swap_bytes=GIB), (steady,), 1.0, 10.0, 1.0)
    assert ask(tight, "lru", Action.SWAP).killed.low == 1


def test_what_is_left_empty_follows_from_how_sparse_tables_are() -> None:
    """One page to a table, half of them let go: half of the tables are empty, and `empty` frees those."""
    phases = (Phase(0, 1.0), Phase(100, 1.0), Phase(101, 0.5))
    guest = GuestClass("g", 64 * GIB, 1, phases, 1)
    asked = Question(HostMemory(1024 * GIB), (guest,), 1.0, 1000.0, 10.0)
    kept, freed = (ask(asked, policy).course.table_bytes[-1] for policy in ("none", "empty"))
    own = 64 * GIB
    assert kept == pytest.approx(own + 2 * (64 * GIB + own) / 512)
    assert freed == pytest.approx(own / 2 + 2 * (32 * GIB + own / 2) / 512)


def test_swap_takes_no_more_than_there_is_room_for() -> None:
    none, little = (ask(question(swap_bytes=room), "lru", Action.SWAP) for room in (0, 1 << 60))
    assert none.tables_kept_least.low == 1.0
    assert none.killed.low > little.killed.high


@settings(deadline=None, max_examples=8)
@given(
    memory=st.floats(16, 128),
    entries=st.floats(1, 512),
    policy=st.sampled_from(["none", "empty", "pressure_random"]),
    action=st.sampled_from(list(Action)),
)
def test_memory_is_never_overdrawn_and_ranges_ascend(
    memory: float, entries: float, policy: str, action: Action
) -> None:
    asked = question(memory, entries, swap_bytes=4 * GIB, other_node_bytes=2 * GIB)
    one = ask(asked, policy, action)
    assert np.all(one.course.data_bytes + one.course.table_bytes <= asked.host.memory_bytes + 1)
    assert 0 <= one.killed.low <= one.killed.high <= 16
    assert one.tables_kept_least.low >= 0.1 - 1e-9
    assert ask(asked, policy, action).fit == one.fit
    more = replace(asked, host=replace(asked.host, memory_bytes=2 * asked.host.memory_bytes))
    larger = ask(more, policy, action)
    assert larger.fit.low >= one.fit.low
    assert larger.killed.high <= one.killed.high
    assert one.fit.low + one.killed.high >= min(16, one.fit.low + 1) or one.killed.high == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("at_most: 30", "at_most: 0"), r":10:14: guests.redis.at_most"),
        (("used: 0.6}\n      - {after: 20", "used: 0.6}\n      - {after: 5"), "each phase must come after"),
        (("none, empty", "none, emtpy"), "no policy is called 'emtpy'"),
        (("memory: 256GiB", "memory: 256"), "not a size"),
        (("lasts: 1h", "lasts: 1h\nseeds: .nan"), "seeds"),
        (("entries_per_table: 6", "entries_per_table: .nan"), "entries_per_table"),
    ],
)
def test_a_wrong_file_is_told_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    text = (SHIPPED / "sparse.yaml").read_text()
    assert change[0] in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(*change))
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(path)])
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert re.search(said, told), told
    assert re.search(rf"{re.escape(str(path))}:\d+:\d+: ", told)


def test_the_page_has_the_answer_and_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "few.yaml", tmp_path / "few.html"
    text = (SHIPPED / "sparse.yaml").read_text().replace("[drop, migrate, compress, swap]", "[swap]")
    path.write_text(text.replace("lasts: 1h", "lasts: 1h\nseeds: 2").replace("sparse", "<b>sparse"))
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(path), "--json", "--html", str(page)])
    found = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert found["origin"] == "modelled"
    names = [(one["policy"], one["action"]) for one in found["answers"]]
    assert names == [("none", "swap"), ("empty", "swap"), ("pressure_random", "swap"), ("lru", "swap")]
    html = page.read_text()
    assert "&lt;b&gt;sparse" in html
    assert "<b>sparse" not in html
    assert 'id="chart-guests"' in html
    assert 'id="chart-latency"' in html
    assert not re.search(r'(src|href)="(https?:)?//', html)
