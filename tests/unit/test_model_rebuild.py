"""What faults make again after policies, against a count in plain Python; and as people ask for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli import main
from orchestrator.model import rebuild as model
from orchestrator.model.nearly_full import MAX_GROWTH
from orchestrator.model.policies import OverTree
from orchestrator.model.rebuild import Rebuild, rebuild, tree_of
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import PAGE_BYTES

UNMAPPED, ZERO, TOUCH = TouchKind.UNMAPPED, TouchKind.READ_ZERO, TouchKind.TOUCH
WIDTH = 512
LEVELS = (1, 2, 3, 4)
Event = tuple[int, TouchKind]
Table = tuple[int, int]  # level and number


def trace_of(events: Sequence[Event], tables: int) -> Trace:
    return Trace(
        "t",
        tables,
        np.array([table for table, _ in events], dtype=np.uint32),
        np.array([kind for _, kind in events], dtype=np.uint8),
    )


def above(table: int) -> list[Table]:
    """A last-level table and those above it."""
    return [(level, table // WIDTH ** (level - 1)) for level in LEVELS]


class Kvm:
    """Tables one by one; what `rebuild` counts at once."""

    def __init__(self) -> None:
        self.there: set[Table] = set()
        self.content: dict[int, str] = {}

    def happens(self, table: int, kind: TouchKind) -> None:
        if kind is UNMAPPED:
            self.content[table] = "empty"
            return
        self.there |= set(above(table))
        if kind is TOUCH:
            self.content[table] = "used"
        elif self.content.get(table, "empty") == "empty":
            self.content[table] = "zero"

    def of(self, *contents: str) -> set[Table]:
        return {(level, n) for level, n in self.there if level == 1 and self.content[n] in contents}

    def nearly_full(self, present: int) -> set[Table]:
        """Ranges in use but the first one, as many as may grow."""
        most = len(self.there) if present == WIDTH else MAX_GROWTH // ((WIDTH - present) * PAGE_BYTES)
        return set(sorted(self.of("used") - {(1, 0)})[: most if present >= 480 else 0])

    def zapped(self, policy: str, present: int) -> set[Table]:
        leaves = {
            "empty": self.of("empty"),
            "zero_page": self.of("empty", "zero"),
            "lru": self.of("empty", "zero"),
            "drop": self.of("empty", "zero", "used"),
            "collapse": self.nearly_full(present),
        }
        if policy == "empty_all_levels":
            return self.there - {
                one for level, n in self.of("zero", "used") if level == 1 for one in above(n)
            }
        return leaves.get(policy, self.there)


def by_hand(events: Sequence[Event], at: int, end: int, policy: str, present: int) -> tuple[int, ...]:
    """Freed, made again, left, and first touched, until before event `end`."""
    kvm = Kvm()
    for table, kind in events[:at]:
        kvm.happens(table, kind)
    zapped = kvm.zapped(policy, present)
    huge = kvm.nearly_full(present) if policy.startswith("collapse") else set()
    left = set(kvm.there) if policy == "collapse" else kvm.there - zapped
    gone = set() if policy == "collapse" else set(zapped)
    again: set[Table] = set()
    new: set[Table] = set()
    for table, kind in events[at:end]:
        if kind is UNMAPPED:
            huge.discard((1, table))
            continue
        for one in above(table):
            if one not in kvm.there:
                new.add(one)
            elif one in huge:  # and the table goes, if it has not yet
                gone.add(one)
                left.discard(one)
            elif one not in left:
                again.add(one)
                left.add(one)
    return len(gone), len(again), len(left), len(new)


def counted(found: Rebuild, policy: str) -> list[tuple[int, ...]]:
    (one,) = [one for one in found.policies if one.policy == policy]
    return list(zip(one.freed, one.rebuilt, one.left, found.first_touched, strict=True))


# Ids on both sides of the borders of tables of several levels.
IDS = st.sampled_from([0, 1, 2, 511, 512, 513, 1023, WIDTH**2 - 1, WIDTH**2, WIDTH**2 + 513])
EVENTS = st.lists(st.tuples(IDS, st.sampled_from(TouchKind)), min_size=1, max_size=40)
TABLES = WIDTH**2 + 1000


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(0, 40), st.sampled_from([100, 480, 512]))
def test_the_count_is_that_of_plain_python(events: list[Event], at: int, present: int) -> None:
    at = min(at, len(events))
    ends = list(range(at, len(events) + 1))
    found = rebuild(trace_of(events, TABLES), at, ends, present)
    assert [one.policy for one in found.policies] == OverTree.names()
    for policy in OverTree.names():
        assert counted(found, policy) == [by_hand(events, at, end, policy, present) for end in ends], policy


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.integers(0, 40))
def test_bounds(events: list[Event], at: int) -> None:
    """Nothing at once, never less than before, never more than was freed; at the end all that was touched."""
    at = min(at, len(events))
    found = rebuild(trace_of(events, TABLES), at, range(at, len(events) + 1), 512)
    for one in found.policies:
        assert one.rebuilt[0] == 0
        assert one.freed[0] == one.freed_at_once
        assert list(one.rebuilt) == sorted(one.rebuilt)
        assert one.rebuilt[-1] <= one.freed[-1] <= found.tables
    before = {one for table, kind in events[:at] if kind for one in above(table)}
    after = {one for table, kind in events[at:] if kind for one in above(table)}
    by_policy = {one.policy: one for one in found.policies}
    assert by_policy["flush"].rebuilt[-1] == by_policy["flush"].left[-1] == len(before & after)
    assert by_policy["drop"].rebuilt[-1] == sum(level == 1 for level, _ in before & after)
    assert found.first_touched[-1] == len(after - before)


def test_a_trace_beyond_four_levels_has_a_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of([(1, TOUCH), (513, TOUCH), (1, TOUCH)], 1024)
    assert np.bincount(tree_of(trace, 2, 512).level).tolist() == [0, 2, 2, 1, 1]
    monkeypatch.setattr(model, "_FOUR_LEVELS", 1023)  # of a real one, arrays would fill gigabytes
    tree = tree_of(trace, 2, 512)
    assert np.bincount(tree.level).tolist() == [0, 2, 2, 1, 1, 1]
    assert tree.number[tree.last_level].tolist() == [1, 513]


def test_what_collapse_may_take_is_bounded() -> None:
    """A range that lacks 32 pages takes 128 KiB; the first one is never huge."""
    trace = trace_of([(n, TOUCH) for n in range(1000)], 1000)
    found = rebuild(trace, 1000, [1000], 480)
    (one,) = [one for one in found.policies if one.policy == "collapse-and-flush"]
    assert (one.huge_pages, one.bytes_taken) == (512, MAX_GROWTH)
    (full,) = [one for one in rebuild(trace, 1000, [1000], 512).policies if one.policy == "collapse"]
    assert (full.huge_pages, full.bytes_taken, full.freed_at_once) == (999, 0, 0)


@pytest.mark.parametrize(("at", "ends"), [(-1, [0]), (2, [1]), (0, [4])])
def test_events_that_the_trace_does_not_have(at: int, ends: list[int]) -> None:
    with pytest.raises(ValueError, match="of 3"):
        rebuild(trace_of([(0, TOUCH)] * 3, 1), at, ends, 512)


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["model", *argv])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


@pytest.fixture
def idle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """1,024 tables that are touched once, and 102 of them for ever."""
    path = str(tmp_path / "idle.npz")
    settings = ("--set", "size=2GiB", "--set", "stays=0.1")
    assert call(capsys, "trace", "boot_then_idle", "-o", path, *settings)[0] == 0
    return path


def test_as_people_ask_for_it(idle: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = call(capsys, "rebuild", idle, "--lasts", "10min", "--json")
    assert code == 0, err
    document = json.loads(text)
    rows = {(one["policy"], one["after_seconds"]): one for one in document["modelled"]}
    assert set(rows) == {(name, after) for name in OverTree.names() for after in (5, 30, 120)}
    assert document["tables"] == 1024 + 2 + 1 + 1
    for after in (30, 120):
        # The working set, and with `flush` what is above it.
        assert rows["drop", after]["rebuilt"] == 102
        assert rows["flush", after]["rebuilt"] == rows["flush", after]["left"] == 102 + 4
        assert rows["drop", after]["left"] == 102 + 4
        assert rows["collapse", after]["freed"] == 102
        assert rows["collapse-and-flush", after]["rebuilt"] <= 4
    assert rows["drop", 5]["freed_at_once"] == 1024
    assert rows["collapse", 5]["freed_at_once"] == 0
    code, text, _ = call(capsys, "rebuild", idle, "--lasts", "10min", "--at", "5min", "--after", "0s")
    assert (code, "modelled" in text, "evenly apart" in text, "again, 0 s" in text) == (0, True, True, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lasts", "3min"), "behind the trace's end"),
        (("--lasts", "0s"), "takes no time"),
        (("--lasts", "long"), "not a duration"),
        (("--lasts", "1h", "--present", "513"), "513"),
        ((), "--lasts"),
    ],
)
def test_what_cannot_be_asked(
    idle: str, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "rebuild", idle, *options)
    assert (code, said in err) == (2, True), err
