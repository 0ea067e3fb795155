"""Each option of page-table-bench: what a round of it asks the kernel for, and what comes of that.

The program is linked with a witness (witness.c) and run on this machine: a phase that does something else
than its name says, or an option that changes nothing, is seen in /proc/self/smaps and VmPTE around it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from orchestrator.units import MIB, PAGE_BYTES, PMD_BYTES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "workloads" / "page-table-bench" / "pt-bench.c"
WRAPPED = ("madvise", "mremap", "munmap", "fork")
SPAN = 16 * MIB
RANGES = SPAN // PMD_BYTES
PAGES = {"sparse": RANGES, "dense": SPAN // PAGE_BYTES}
# Last-level tables are counted; of upper levels a mapping takes at most one each here.
UPPER = 3
ADVICE = {"dontneed": 4, "free": 8}  # madvise(2)
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
no_huge_pages = pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this machine has huge pages off"
)


@dataclass(frozen=True)
class Round:
    """The calls of one round, in order."""

    calls: list[dict[str, Any]]
    answer: dict[str, Any]

    @cached_property
    def advised(self) -> list[dict[str, Any]]:
        return [one for one in self.calls if one["call"] == "madvise" and one["argument"] in ADVICE.values()]

    def one(self, call: str) -> dict[str, Any]:
        (found,) = (one for one in self.calls if one["call"] == call)
        return found

    @property
    def touched(self) -> dict[str, Any]:
        """The state between `touch` and `discard`."""
        state: dict[str, Any] = self.advised[0]["before"]
        return state

    @property
    def discarded(self) -> dict[str, Any]:
        state: dict[str, Any] = self.advised[-1]["after"]
        return state

    @property
    def touched_again(self) -> dict[str, Any]:
        state: dict[str, Any] = self.one("fork")["before"]
        return state


Witnessed = Callable[..., Round]


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Witnessed:
    folder = tmp_path_factory.mktemp("witness")
    program = folder / "pt-bench"
    flags = ["-std=gnu11", "-O2", "-static", *(f"-Wl,--wrap={name}" for name in WRAPPED)]
    sources = [SOURCE, Path(__file__).with_name("witness.c")]
    subprocess.run(["gcc", *flags, "-o", str(program), *map(str, sources)], check=True, capture_output=True)

    def run(span: int = SPAN, **options: object) -> Round:
        seen = folder / "seen"
        seen.unlink(missing_ok=True)
        words = ["unit=nanoseconds", "rounds=1", "warm_up=0", *(f"{k}={v}" for k, v in options.items())]
        environment = {**os.environ, "WITNESS": str(seen)}
        argv = [str(program), str(span), *words]
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        return Round([json.loads(line) for line in seen.read_text().splitlines()], json.loads(done.stdout))

    return run


def tables_between(less: dict[str, Any], more: dict[str, Any]) -> int:
    return int(more["tables"] - less["tables"]) // PAGE_BYTES


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_a_round_touches_discards_and_touches_again(witnessed: Witnessed, layout: str) -> None:
    found = witnessed(layout=layout, thp="never")
    assert found.touched["rss"] == found.touched_again["rss"] == PAGES[layout] * PAGE_BYTES
    assert found.discarded["rss"] == 0
    assert found.answer["pages"] == PAGES[layout]


def test_fork_copies_the_tables_of_anonymous_memory_alone(witnessed: Witnessed) -> None:
    """copy_page_range() leaves out what a fault can map again (vma_needs_copy(), mm/memory.c)."""
    for backing, copied in (("anonymous", RANGES), ("shared", 0), ("file", 0)):
        child = witnessed(backing=backing, thp="never").one("child")["after"]
        assert child["rss"] == copied * PAGE_BYTES, backing


def test_mremap_moves_table_by_table(witnessed: Witnessed) -> None:
    call = witnessed(thp="never").one("mremap")
    before, after = call["before"], call["after"]
    assert (before["from"], before["to"] - before["from"]) == (1 << 44, SPAN)
    assert after["from"] != before["from"]
    assert after["to"] - after["from"] == SPAN
    assert after["rss"] == before["rss"] == RANGES * PAGE_BYTES
    moved_by = after["from"] - before["from"]
    # A distance of whole 1 GiB could move a PMD table at once (move_normal_pud(), mm/mremap.c).
    assert moved_by % PMD_BYTES == 0
    assert moved_by % (512 * PMD_BYTES) != 0


def test_munmap_leaves_nothing(witnessed: Witnessed) -> None:
    call = witnessed(thp="never").one("munmap")
    assert call["before"]["rss"] == RANGES * PAGE_BYTES
    assert (call["after"]["rss"], call["after"]["from"]) == (0, 0)
    assert RANGES <= tables_between(call["after"], call["before"]) <= RANGES + UPPER


@pytest.mark.parametrize("layout", ["sparse", "dense"])
@pytest.mark.parametrize("discard", ["dontneed", "free"])
@pytest.mark.parametrize("chunk", ["all", "pmd", "page"])
def test_it_discards_as_asked(
    witnessed: Witnessed, frees_empty_tables: bool, layout: str, discard: str, chunk: str
) -> None:
    ranges = 2  # each call is looked at, and a page at a time they are many
    span = ranges * PMD_BYTES
    pages = ranges if layout == "sparse" else span // PAGE_BYTES
    found = witnessed(span, layout=layout, discard=discard, chunk=chunk, thp="never")
    length, count = {"all": (span, 1), "pmd": (PMD_BYTES, ranges), "page": (PAGE_BYTES, pages)}[chunk]
    assert {(one["length"], one["argument"]) for one in found.advised} == {(length, ADVICE[discard])}
    assert len({one["from"] for one in found.advised}) == len(found.advised) == count
    held = pages * PAGE_BYTES
    # What is freed lazily stays, and is clean until it is written again (madvise_free_pte_range()).
    assert (found.discarded["rss"], found.discarded["dirty"]) == (held if discard == "free" else 0, 0)
    assert found.touched["dirty"] == found.touched_again["dirty"] == held
    freed = tables_between(found.discarded, found.touched)
    # A page at a time no range is whole, so its table stays; MADV_FREE leaves entries in it.
    assert freed == (ranges if frees_empty_tables and discard == "dontneed" and chunk != "page" else 0)
    assert tables_between(found.discarded, found.touched_again) == freed


@pytest.mark.parametrize(
    ("backing", "name", "shared"),
    [("anonymous", "", False), ("shared", "/dev/zero", True), ("file", "/var/tmp/pt-bench-", True)],
)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_it_maps_what_is_asked(
    witnessed: Witnessed, layout: str, backing: str, name: str, shared: bool
) -> None:
    found = witnessed(backing=backing, layout=layout, thp="never")
    held = PAGES[layout] * PAGE_BYTES
    for state in (found.touched, found.touched_again):
        assert state["rss"] == held
        assert state["anonymous"] == (0 if shared else held)
        assert state["name"].startswith(name)
        assert state["name"].endswith("(deleted)" if shared else name), (
            "gone with the process, however it ends"
        )
        assert ("sh" in state["flags"].split()) == shared
        # A file is only read: else writing it back would be part of what is measured.
        assert state["dirty"] == (0 if backing == "file" else held)
    assert found.discarded["rss"] == 0


@no_huge_pages
def test_huge_pages_are_on_off_or_as_the_machine_has_them(witnessed: Witnessed) -> None:
    on, off, machine = (witnessed(thp=thp) for thp in ("always", "never", "guest"))
    assert [
        [flag in one.touched["flags"].split() for flag in ("hg", "nh")] for one in (on, off, machine)
    ] == [
        [True, False],
        [False, True],
        [False, False],
    ]
    assert on.touched["huge"] == on.touched_again["huge"] == on.touched["rss"] == SPAN, (
        "one byte of each range"
    )
    assert off.touched["huge"] == 0
    assert machine.touched["huge"] == (SPAN if "[always]" in HUGE_PAGES.read_text() else 0)
    # A huge page has a table deposited, which goes with it (zap_deposited_table(), mm/huge_memory.c).
    assert tables_between(on.discarded, on.touched) == RANGES


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_threads_share_the_ranges(witnessed: Witnessed, layout: str, threads: int) -> None:
    found = witnessed(threads=threads, layout=layout, chunk="pmd", thp="never")
    parts: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for call in found.advised:
        parts[call["thread"]].append(call)
    assert len(parts) == threads
    covered = sorted(call["from"] for call in found.advised)
    assert covered == [(1 << 44) + number * PMD_BYTES for number in range(RANGES)], "each once"
    assert {len(calls) for calls in parts.values()} <= {RANGES // threads, RANGES // threads + 1}
    for calls in parts.values():
        # It has touched its own part: a fault for each page, and no more than a few of its own.
        faults = calls[0]["before"]["faults"]
        own = len(calls) * PAGES[layout] // RANGES
        assert own <= faults < own + 200
