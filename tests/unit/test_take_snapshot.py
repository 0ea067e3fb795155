"""Taking a snapshot: the guest's flags are played, the page-table pages lie in our own memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DEVICE, FakeDomain, FakeShell

from orchestrator.errors import InfrastructureError
from orchestrator.guest.boot import Guest
from orchestrator.guest.console import Console
from orchestrator.guest.snapshot import take_snapshot
from orchestrator.host.machine import Machine
from orchestrator.model.frames import KPF_BUDDY, KPF_PGTABLE

MACHINE = Machine.model_validate({"memory": "32MiB"})
TABLE, BUDDY = 1 << KPF_PGTABLE, 1 << KPF_BUDDY
FRAMES = MACHINE.memory // 4096
# Two tables that QEMU has, one (1000) that it has no page for, and one (0x10) below what is looked at.
RUNS = [(0, 16), (TABLE, 1), (0, 983), (TABLE, 1), (0, 999), (TABLE, 2), (BUDDY, FRAMES - 2002)]


ZONEINFO = """\
Node 0, zone    DMA32
  pages free     48000
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


def guest(tmp_path: Path, memory: int, pageflags: object = None, **answers: object) -> Guest:
    usual: dict[str, Any] = {
        "uname -r": "6.12.57+deb13-cloud-amd64\n",
        "cat /sys/devices/system/memory/block_size_bytes": "8000000\n",
        "sh -c grep": "".join(
            f"/sys/devices/system/memory/memory{block}/online:{online}\n"
            for block, online in ((10, 1), (0, 1), (9, 0))
        ),
        "cat /proc/zoneinfo": ZONEINFO,
        "/usr/local/bin/guest-probe pageflags": flags() if pageflags is None else pageflags,
    }
    device = FakeDomain(pid=os.getpid(), device=None, addresses=lambda address: memory + address)
    made: Any = (device, FakeShell({**usual, **answers}), Console(tmp_path / "console.log"), None)
    return Guest(*made)


def test_what_is_in_a_snapshot(tmp_path: Path, memory: int) -> None:
    running = guest(tmp_path, memory)
    snapshot = take_snapshot(running, MACHINE, "loaded")
    assert (snapshot.label, snapshot.kernel) == ("loaded", "6.12.57+deb13-cloud-amd64")
    assert len(snapshot.flags) == FRAMES
    assert snapshot.notes["pages_on_cpu_lists"] == "DMA32 7344, Normal 818"
    assert np.flatnonzero(snapshot.flags == TABLE).tolist() == [16, 1000, 2000, 2001]
    assert snapshot.table_pfn.tolist() == [2000, 2001]
    assert snapshot.tables_unread == 2
    assert snapshot.entry_start.tolist() == [0, 2, 2], "2001 is empty"
    assert snapshot.entry_slot.tolist() == [0, 511]
    assert snapshot.entry_value.tolist() == [0x67, 0x8000_0000_0000_0067]
    assert snapshot.online_block_bytes == 128 << 20
    assert snapshot.online_blocks.tolist() == [0, 10]
    assert snapshot.moved == 0
    assert snapshot.regions == ()
    domain: Any = running.domain
    assert domain.calls == [("suspend",), ("resume",)]


def test_what_changed_meanwhile_is_counted(tmp_path: Path, memory: int) -> None:
    later = [*RUNS[:-1], (0, 7), (BUDDY, FRAMES - 2002 - 7 - 5)]  # 7 frames changed, 5 are gone
    snapshot = take_snapshot(guest(tmp_path, memory, [flags(), flags(later)]), MACHINE, "x")
    assert snapshot.moved == 12


def test_the_vcpus_run_again_whatever_happens(tmp_path: Path, memory: int) -> None:
    running = guest(tmp_path, memory)
    domain: Any = running.domain
    domain.addresses = lambda address: 0
    with pytest.raises(InfrastructureError, match="in one piece"):
        take_snapshot(running, MACHINE, "x")
    assert domain.calls == [("suspend",), ("resume",)]


def test_the_device_is_a_region(tmp_path: Path, memory: int) -> None:
    running = guest(tmp_path, memory)
    domain: Any = running.domain
    domain.device = DEVICE
    (region,) = take_snapshot(running, MACHINE, "x").regions
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
        take_snapshot(guest(tmp_path, memory, raw), MACHINE, "x")


@pytest.mark.parametrize("size", ["", "0x", "many", "-1", "f" * 13])
def test_a_block_size_that_makes_no_sense(tmp_path: Path, memory: int, size: str) -> None:
    said = {"cat /sys/devices/system/memory/block_size_bytes": size}
    with pytest.raises(InfrastructureError, match="block size makes no sense"):
        take_snapshot(guest(tmp_path, memory, **said), MACHINE, "x")
