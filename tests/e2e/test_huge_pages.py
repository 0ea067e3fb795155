"""Huge pages, zero pages and merged pages of real kernels: what is read of them against what was made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import ROOT, Orchestrator

from orchestrator.host.domain import QemuProcess
from orchestrator.host.qemu_process import PageState, Segment, page_state
from orchestrator.host.shell import HostShell
from orchestrator.model.policies import OverSnapshot, StateView
from orchestrator.model.tables import LAST_LEVEL, TableState
from orchestrator.store.snapshot_file import read_snapshot

HELD = 128  # huge pages
SCENARIO = """\
version: 1
name: huge-pages
guest: debian-13
machine: {{vcpus: 1, memory: 1GiB}}
setup: {{thp: always}}
arms:
  "6.12": {{kernel: "6.12"}}
  7.x: {{kernel: 7.x}}
steps:
  - snapshot: {{label: before}}
  - start: {{workload: mlock, set: {{amount: 256MiB, options: {{thp: guest}}}}}}
  - wait: {{time: 3s}}
  - snapshot: {{label: loaded}}
  - exec: {{argv: [python3, -c, {program}]}}
"""
# In a guest, where KSM merges no other memory: two pages of one content, one only read, one more; huge ones.
# It prints to the console what the reader reads of itself.
PROGRAM = """\
import json, mmap, os, time, types
reader = types.ModuleType("pagemap")
exec({source!r}, reader.__dict__)
KSM, PAGE, HUGE = "/sys/kernel/mm/ksm/", 4096, 2 << 20

def write(name, text):
    with open(KSM + name, "w") as file:
        file.write(text)

def memory(size, advice):
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    region.madvise(advice)
    import ctypes
    return region, ctypes.addressof(ctypes.c_char.from_buffer(region))

def read(address, size):
    found = reader.page_regions(os.getpid(), address, size)
    return [address, size, found.hex(), reader.page_bits(os.getpid(), address, size // PAGE).hex()]

same = os.urandom(PAGE)
small, at = memory(4 * PAGE, mmap.MADV_NOHUGEPAGE)
small[:PAGE] = small[PAGE:2 * PAGE] = same
small[3 * PAGE:] = os.urandom(PAGE)
assert small[2 * PAGE] == 0
small.madvise(mmap.MADV_MERGEABLE)
write("sleep_millisecs", "10")
write("run", "1")
until = time.monotonic() + 40
while int(open("/proc/self/ksm_merging_pages").read()) < 2 and time.monotonic() < until:
    time.sleep(0.1)
merged = int(open("/proc/self/ksm_merging_pages").read())
large, start = memory(3 * HUGE, mmap.MADV_HUGEPAGE)
first = -start % HUGE
large[first] = 1
assert large[first + HUGE] == 0
said = dict(merged=merged, small=read(at, 4 * PAGE), large=read(start + first, 2 * HUGE))
with open("/dev/console", "w") as console:
    console.write("\\nPAGES " + json.dumps(said) + "\\n")
"""


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Folders of the trials, by kernel."""
    folder = tmp_path_factory.mktemp("huge-pages")
    orchestrator = Orchestrator(folder / "results")
    source = (ROOT / "orchestrator" / "host" / "pagemap.py").read_text()
    scenario = folder / "huge-pages.yaml"
    scenario.write_text(SCENARIO.format(program=json.dumps(PROGRAM.format(source=source))))
    finished = orchestrator.run(scenario, "--json")
    assert finished.code == 0, finished.err
    found = Path(orchestrator.show()["directory"]) / "trials"
    yield {kernel: found / f"{kernel}-01" for kernel in ("6.12", "7.x")}
    orchestrator.close()


def loaded(trial: Path) -> StateView:
    (path,) = (trial / "snapshots").glob("*loaded.npz")
    return StateView.of(read_snapshot(path))


@pytest.mark.parametrize("kernel", ["6.12", "7.x"])
def test_each_huge_page_of_anonymous_memory_has_a_table(trials: dict[str, Path], kernel: str) -> None:
    """By struct pages; against entries of PMD tables, which know nothing of those, one by one."""
    state = loaded(trials[kernel])
    snapshot, tables = state.snapshot, state.tables
    value = snapshot.entry_value
    table = np.repeat(np.arange(snapshot.tables), np.diff(snapshot.entry_start))
    pfn = ((value >> np.uint64(12)) & np.uint64((1 << 40) - 1)).astype(np.int64) & -512
    huge = ((value & np.uint64(0x85)) == 0x85) & (pfn < len(snapshot.flags))  # present, user, huge
    huge[huge] = (snapshot.flags[pfn[huge]] & np.uint64(1 << 12 | 1 << 24)) != 0  # anonymous, or zeros
    deposited = tables.state == TableState.DEPOSITED
    assert snapshot.deposits_read
    each = np.bincount(tables.parent[deposited], minlength=len(tables))
    assert each.tolist() == np.bincount(table[huge], minlength=len(tables)).tolist()
    assert HELD <= deposited.sum() <= HELD + 16
    # None is what a policy could free, and none is counted with those.
    empty = OverSnapshot.named("empty").apply(state)
    assert not (empty.freed & deposited).any()
    assert empty.tables_freed < HELD
    assert (tables.state[tables.level == LAST_LEVEL] == TableState.EMPTY).sum() < HELD


def page_state_of(said: list[Any]) -> PageState:
    address, size, regions, bits = said
    answers = {"page_regions": bytes.fromhex(regions), "page_bits": bytes.fromhex(bits)}
    shell = HostShell(lambda name, *_, **__: answers[name])
    return page_state(QemuProcess(1, shell), Segment(0, address, size))


@pytest.mark.parametrize("kernel", ["6.12", "7.x"])
def test_merged_pages_and_zero_pages_are_told_apart(trials: dict[str, Path], kernel: str) -> None:
    console = (trials[kernel] / "console.log").read_text(errors="replace")
    (line,) = (line for line in console.splitlines() if line.startswith("PAGES {"))
    said = json.loads(line.removeprefix("PAGES "))
    assert said["merged"] == 2
    small, large = page_state_of(said["small"]), page_state_of(said["large"])
    assert [bits & 1 for bits in bytes.fromhex(said["small"][3])] == [0, 0, 0, 1], "mapped once"
    assert small.zero_page is not None
    assert small.zero_page.tolist() == [False, False, True, False]
    assert small.backed.tolist() == [True, True, False, True]
    assert large.huge is not None
    assert large.huge.all()
    assert large.backed.tolist() == [True] * 512 + [False] * 512
