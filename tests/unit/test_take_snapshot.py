"""Taking a snapshot: guest-probe is played, the page-table pages lie in our own memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import DEVICE, FakeChannel, FakeDomain, FakeShell

from orchestrator.errors import GuestLostError, InfrastructureError
from orchestrator.guest.boot import Guest
from orchestrator.guest.console import Console
from orchestrator.guest.snapshot import SnapshotTaker, _tables_among
from orchestrator.host.domain import Dimm
from orchestrator.host.machine import Machine
from orchestrator.model.frames import KPF_BUDDY, KPF_PGTABLE
from orchestrator.model.kernel_free import KernelFree
from orchestrator.model.snapshot import Snapshot

MACHINE = Machine.model_validate({"memory": "32MiB"})
TABLE, BUDDY = 1 << KPF_PGTABLE, 1 << KPF_BUDDY
FRAMES = MACHINE.memory // 4096
# Two tables that QEMU has, one (1000) that it has no page for, and one (0x10) below what is looked at.
RUNS = [(0, 16), (TABLE, 1), (0, 983), (TABLE, 1), (0, 999), (TABLE, 2), (BUDDY, FRAMES - 2002)]


ZONEINFO = """\
Node 0, zone    DMA32
  pages free     48000
        min      6992
        protection: (0, 0, 352, 352)
    cpu: 0
              count:    3651
    cpu: 1
              count:    3693
Node 0, zone   Normal
    cpu: 0
              count:    369
    cpu: 1
              count:    449
Node 0, zone  Movable
              count:    0
"""


def flags(runs: list[tuple[int, int]] = RUNS) -> bytes:
    return np.array(runs, dtype="<u8").tobytes()


@pytest.fixture
def memory() -> Iterator[int]:
    """Address of memory of our own as the guest's RAM; only frames 2000 and 2001 were ever touched."""
    with mmap.mmap(-1, MACHINE.memory, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_NOHUGEPAGE)
        for frame, entries in ((2000, {0: 0x67, 511: 0x8000_0000_0000_0067}), (2001, {})):
            words = np.zeros(512, dtype="<u8")
            for slot, value in entries.items():
                words[slot] = value
            region[frame * 4096 : (frame + 1) * 4096] = words.tobytes()
        view = np.frombuffer(region, dtype=np.uint8)
        address = view.ctypes.data
        del view
        yield address


FILES = {
    "/proc/sys/kernel/osrelease": "6.12.57+deb13-cloud-amd64\n",
    "/sys/devices/system/memory/block_size_bytes": "8000000\n",
    "/proc/zoneinfo": ZONEINFO,
    "/sys/kernel/vmcoreinfo": None,
}


class PlayedProbe(FakeChannel):
    """guest-probe: what it says to each `all` and `flags` that it is asked."""

    def __init__(self, said: list[bytes], owner: bool = False) -> None:
        super().__init__([b"#cpu 1000000 0 0\n#page_owner %d\n" % owner])
        self.said = said
        self.asked: list[bytes] = []

    def sendall(self, asked: bytes) -> None:
        self.asked.append(asked.partition(b"\n")[0])
        if asked.startswith(b"owners"):
            return
        if not self.said:
            raise OSError("closed")
        self.put(self.said.pop(0) or None)


def listing(raw: bytes, cpu: int) -> bytes:
    """A reading of flags as guest-probe writes it; `cpu` counts its readings."""
    used = (cpu * 41_000_000, cpu * 40_000_000, cpu * 2_000_000)
    return b"#flags %d\n%b\n#cpu %d %d %d\n" % (len(raw), raw, *used)


def answers(first: bytes, second: bytes, online: str = "10 0 ", **files: str | None) -> list[bytes]:
    """What guest-probe says when a snapshot is taken; `files` differ by the last part of their path."""
    texts = {path: files.get(path.rpartition("/")[2], text) for path, text in FILES.items()}
    parts = [
        f"#file {path} {-1 if text is None else len(text)}\n{text or ''}\n" for path, text in texts.items()
    ]
    parts.append(f"#online {len(online)}\n{online}\n")
    return ["".join(parts).encode() + listing(first, 1), listing(second, 2)]


def guest(tmp_path: Path, memory: int, said: list[bytes] | None = None) -> Guest:
    domain = FakeDomain(pid=os.getpid(), device=None, addresses=lambda address: memory + address)
    shell = FakeShell(channel=PlayedProbe(answers(flags(), flags()) if said is None else said))
    made: Any = (domain, shell, Console(tmp_path / "console.log"), None)
    return Guest(*made)


def take(running: Guest) -> Snapshot:
    with SnapshotTaker(running, MACHINE) as taker:
        return taker.take("loaded")


def test_what_is_in_a_snapshot(tmp_path: Path, memory: int) -> None:
    running = guest(tmp_path, memory)
    snapshot = take(running)
    assert (snapshot.label, snapshot.kernel) == ("loaded", "6.12.57+deb13-cloud-amd64")
    assert len(snapshot.flags) == FRAMES
    assert snapshot.notes["pages_on_cpu_lists"] == "DMA32 7344, Normal 818"
    assert KernelFree.of_notes(snapshot.notes) == KernelFree(free=48000, kept=7344)
    assert np.flatnonzero(snapshot.flags == TABLE).tolist() == [16, 1000, 2000, 2001]
    assert snapshot.table_pfn.tolist() == [2000, 2001]
    assert snapshot.tables_unread == 2
    assert snapshot.entry_start.tolist() == [0, 2, 2], "2001 is empty"
    assert snapshot.entry_slot.tolist() == [0, 511]
    assert snapshot.entry_value.tolist() == [0x67, 0x8000_0000_0000_0067]
    assert snapshot.online_block_bytes == 128 << 20
    assert snapshot.online_blocks.tolist() == [0, 10]
    assert snapshot.frames_changed == 0
    assert snapshot.regions == ()
    domain: Any = running.domain
    assert domain.calls == [("suspend",), ("resume",)]
    channel: Any = running.shell.stream([])
    assert channel.asked == [b"all", b"flags"]


def test_what_it_cost_is_noted(tmp_path: Path, memory: int) -> None:
    notes = take(guest(tmp_path, memory)).notes
    assert notes["guest_cpu_seconds_for_flags"] == "0.080"
    assert notes["guest_cpu_seconds_for_the_rest"] == "0.0010", "82 ms, less 80 for flags and 1 before"
    assert notes["guest_cpu_seconds_for_sending"] == "0.0040"
    assert 0 <= float(notes["stopped_seconds"]) <= float(notes["seconds"])


def test_why_there_is_no_evidence(tmp_path: Path, memory: int) -> None:
    snapshot = take(guest(tmp_path, memory))
    assert len(snapshot.evidence) == 0
    assert snapshot.notes["evidence"] == "not read: the guest has no /sys/kernel/vmcoreinfo"
    # Frame 2000 holds a page table and no VMCOREINFO; 3000 was never touched.
    for place, why in (("0x7d0000 1000", "VMCOREINFO has no SYMBOL"), ("0xbb8000 1000", "QEMU has no page")):
        snapshot = take(guest(tmp_path, memory, answers(flags(), flags(), vmcoreinfo=place)))
        assert snapshot.notes["evidence"].startswith(f"not read: {why}")


def test_what_changed_meanwhile_is_counted(tmp_path: Path, memory: int) -> None:
    later = [*RUNS[:-1], (0, 7), (BUDDY, FRAMES - 2002 - 7 - 5)]  # 7 frames changed, 5 are gone
    assert take(guest(tmp_path, memory, answers(flags(), flags(later)))).frames_changed == 12


def test_several_snapshots_one_after_the_other(tmp_path: Path, memory: int) -> None:
    said = answers(flags(), flags()) + [
        part.replace(b"#cpu 4", b"#cpu 14") for part in answers(flags(), flags())
    ]
    said[3] = said[3].replace(b"#cpu 82000000 80000000", b"#cpu 222000000 160000000")
    with SnapshotTaker(guest(tmp_path, memory, said), MACHINE) as taker:
        taker.take("one")
        assert taker.take("two").notes["guest_cpu_seconds_for_the_rest"] == "0.0600"


def test_the_vcpus_run_again_whatever_happens(
    tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = guest(tmp_path, memory)

    def fail(*_: object) -> None:
        raise InfrastructureError("QEMU's memory ended before the guest's did")

    monkeypatch.setattr("orchestrator.guest.snapshot.read_frames", fail)
    with pytest.raises(InfrastructureError, match="QEMU's memory ended"):
        take(running)
    domain: Any = running.domain
    assert domain.calls == [("suspend",), ("resume",)]


def test_the_device_is_a_region(tmp_path: Path, memory: int) -> None:
    running = guest(tmp_path, memory)
    domain: Any = running.domain
    domain.device = DEVICE
    (region,) = take(running).regions
    assert (region.start_pfn, region.pages, region.block_pages) == (1 << 20, 1 << 19, 512)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 15,
        flags()[:-1],
        flags([(0, 0)]),
        flags([(0, 1 << 62)]),
        flags([(0, 1 << 29)]),  # 2 TiB, of a guest of 32 MiB
        flags([(0, 1 << 63), (0, 1 << 63)]),
    ],
)
def test_flags_that_make_no_sense(tmp_path: Path, memory: int, raw: bytes) -> None:
    with pytest.raises(InfrastructureError, match="page flags make no sense"):
        take(guest(tmp_path, memory, answers(raw, raw)))


@pytest.mark.parametrize("size", ["", "0x", "many", "-1", "f" * 13])
def test_a_block_size_that_makes_no_sense(tmp_path: Path, memory: int, size: str) -> None:
    with pytest.raises(InfrastructureError, match="block size makes no sense"):
        take(guest(tmp_path, memory, answers(flags(), flags(), block_size_bytes=size)))


@pytest.mark.parametrize(
    "said",
    [
        [b"#file /etc/passwd 3\nabc\n", b""],
        [b"#file /proc/sys/kernel/osrelease 999999999\n", b""],
        [b"Segmentation fault\n", b""],
        [answers(flags(), flags(), online="0 x")[0], b""],
        [answers(flags(), flags())[0].replace(b"#online 5", b"#online 99999999"), b""],
        [answers(flags(), flags())[0], b"#flags -1\n"],
        [answers(flags(), flags())[0], b""],
    ],
)
def test_a_guest_that_says_something_else(tmp_path: Path, memory: int, said: list[bytes]) -> None:
    with pytest.raises(InfrastructureError, match="guest-probe gave no snapshot"):
        take(guest(tmp_path, memory, said))


def test_a_guest_that_is_gone(tmp_path: Path, memory: int) -> None:
    with pytest.raises(GuestLostError, match="connection"):
        take(guest(tmp_path, memory, []))


def test_dimms_are_regions_of_linux_memory_blocks(tmp_path: Path, memory: int) -> None:
    running = guest(tmp_path, memory)
    domain: Any = running.domain
    second = Dimm("dimm1", 1, (1 << 32) + (256 << 20), 64 << 20)
    domain.plugged = (Dimm("dimm0", 0, 1 << 32, 256 << 20), second)
    regions = take(running).regions
    assert [(one.name, one.start_pfn, one.pages, one.block_pages) for one in regions] == [
        ("dimm0", 1 << 20, 65536, 32768),
        ("dimm1", (1 << 20) + 65536, 16384, 16384),
    ]


@pytest.mark.parametrize(
    ("second_level", "unused", "found"), [("NPT", 1 << 63, True), ("NPT", 0, False), ("none", 1 << 63, False)]
)
def test_tables_of_a_host_are_told_only_where_they_can_be(
    tmp_path: Path, memory: int, second_level: str, unused: int, found: bool
) -> None:
    # A full table, and one above it: before Linux 6.10 entries without use are zeros, and it looks like none.
    link, leaf = 0xC27, 0xE07
    tables = np.full((2, 512), unused, dtype=np.uint64)
    tables[0, 0] = 4 << 12 | link
    tables[1] = np.arange(0x1000, 0x1200) << 12 | leaf
    with SnapshotTaker(guest(tmp_path, memory), MACHINE, second_level) as taker:
        looked = taker._second_level
        pfn, contents = _tables_among((np.array([3, 4]), tables))
        outside: Any = SimpleNamespace(second_level=(pfn, contents) if looked else None)
        evidence = np.zeros(8, dtype=np.uint8)
        notes = taker._second_level_tables(outside, np.zeros(8, dtype=np.uint64), evidence)
    assert ("second_level" in notes) is found
    assert bool(evidence.any()) is found
