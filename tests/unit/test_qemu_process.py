"""A process read from outside: our own stands in for QEMU, with memory whose state we know."""

from __future__ import annotations

import errno
import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DEVICE, FakeDomain

from orchestrator.errors import InfrastructureError
from orchestrator.host import reader
from orchestrator.host.domain import Dimm, QemuProcess
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import (
    Segment,
    page_state,
    physical_end,
    ram_segments,
    read_frames,
    status_bytes,
)
from orchestrator.host.shell import HostShell

US = QemuProcess(os.getpid())
PAGE = 4096
PAGES = 64
HUGE = 2 << 20
MIB, GIB = 1 << 20, 1 << 30
WRITTEN = [3, 4, 5, 40]
FIRST = 0x1000  # the guest frame that the first page stands for


@pytest.fixture
def memory() -> Iterator[Segment]:
    """Pages of our own as guest RAM; only those in WRITTEN were ever touched."""
    with mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_NOHUGEPAGE)
        for page in WRITTEN:
            words = np.full(512, page, dtype="<u8")
            words[511] = 0xDEAD
            region[page * PAGE : (page + 1) * PAGE] = words.tobytes()
        view = np.frombuffer(region, dtype=np.uint8)
        address = view.ctypes.data
        del view
        yield Segment(FIRST * PAGE, address, PAGES * PAGE)


def test_what_is_present_and_what_is_not(memory: Segment) -> None:
    state = page_state(US, memory)
    assert np.flatnonzero(state.present).tolist() == WRITTEN
    assert not state.swapped.any()
    assert state.zero_page is not None
    assert not state.zero_page.any()
    assert len(state.present) == len(state.swapped) == PAGES


def test_what_was_only_read_is_the_zero_page() -> None:
    """As QEMU's memory is after a restore: pages that were saved as zeros were read, and take no memory."""
    with mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_NOHUGEPAGE)
        region[0] = 1
        assert region[PAGE] == 0
        view = np.frombuffer(region, dtype=np.uint8)
        state = page_state(US, Segment(0, view.ctypes.data, 4 * PAGE))
        del view
    assert state.present.tolist() == [True, True, False, False]
    assert state.zero_page is not None
    assert state.zero_page.tolist() == [False, True, False, False]
    assert state.backed.tolist() == [True, False, False, False]


def test_a_huge_page_that_was_only_read_is_the_huge_zero_page() -> None:
    """Where the kernel gives huge pages; else it is small zero pages. Neither takes memory."""
    with mmap.mmap(-1, 3 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_HUGEPAGE)
        view = np.frombuffer(region, dtype=np.uint8)
        first = -view.ctypes.data % HUGE
        assert view[first] == 0
        state = page_state(US, Segment(0, view.ctypes.data + first, HUGE))
        del view
    assert state.present[0]
    assert not state.backed.any()


@contextmanager
def shared_with_a_child() -> Iterator[None]:
    """While it lasts, what is written here is mapped by a second process, too, as what KSM merged is."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        # Python from 3.12 on warns of threads; the child does nothing that could wait for one.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(writes)
        os.read(reads, 1)  # until the parent closes its end
        os._exit(0)
    os.close(reads)
    try:
        yield
    finally:
        os.close(writes)
        os.waitpid(child, 0)


@contextmanager
def small_pages(*firsts: bytes) -> Iterator[tuple[mmap.mmap, Segment]]:
    """Pages of 4 KiB with these bytes at their beginning; an empty one is only read."""
    with mmap.mmap(-1, len(firsts) * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_NOHUGEPAGE)
        for page, first in enumerate(firsts):
            if first:
                region[page * PAGE : page * PAGE + len(first)] = first
            else:
                assert region[page * PAGE] == 0
        view = np.frombuffer(region, dtype=np.uint8)
        address = view.ctypes.data
        del view
        yield region, Segment(0, address, len(firsts) * PAGE)


class OldKernel:
    """The calls of a reader on a kernel without PAGEMAP_SCAN, with files of its own beside."""

    def __init__(self, merged: str | None) -> None:
        self.merged = merged

    def __call__(self, name: str, *words: Any, **_: object) -> Any:
        if name == "page_regions":
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        if name == "texts":
            (patterns,) = words
            return {} if self.merged is None else {patterns[0]: self.merged}
        return reader.CALLS[name](*words)


def test_a_page_that_two_have_is_no_zero_page(shell: HostShell) -> None:
    """It has memory; taken for a zero page, it was left out of what a guest has and needs."""
    us = QemuProcess(os.getpid(), shell)
    with small_pages(b"a", b"", b"b") as (region, segment), shared_with_a_child():
        region[2 * PAGE] = 3  # a copy of its own again
        bits = np.frombuffer(shell.page_bits(us.pid, segment.host_virtual, 3), dtype=np.uint8)
        assert (bits & 1).tolist() == [0, 0, 1], "mapped once"
        state = page_state(us, segment)
    assert state.zero_page is not None
    assert state.zero_page.tolist() == [False, True, False]
    assert state.backed.tolist() == [True, False, True]


def test_a_kernel_without_pagemap_scan_tells_zero_pages_while_nothing_is_merged() -> None:
    with small_pages(b"a", b"") as (_, segment):
        old = page_state(QemuProcess(os.getpid(), HostShell(OldKernel("0\n"))), segment)
        assert old.zero_page is not None
        assert old.zero_page.tolist() == [False, True]
        assert old.huge is None
        for merged in ("3\n", None):
            old = page_state(QemuProcess(os.getpid(), HostShell(OldKernel(merged))), segment)
            assert old.zero_page is None
            assert old.backed.tolist() == old.present.tolist() == [True, True]


def test_any_other_failure_of_the_scan_is_one() -> None:
    def refuses(name: str, *words: Any, **_: object) -> Any:
        if name == "page_regions":
            raise OSError(errno.EPERM, "no")
        return reader.CALLS[name](*words)

    with small_pages(b"a") as (_, segment), pytest.raises(OSError, match="no"):
        page_state(QemuProcess(os.getpid(), HostShell(refuses)), segment)


def test_the_huge_zero_page_is_found_where_the_scan_does_not_name_it() -> None:
    """Up to Linux 6.16 it does not; faked here, beside a huge page with memory of its own."""
    two = 2 * HUGE

    def unnamed(name: str, *words: Any, **_: object) -> Any:
        if name == "page_regions":
            _, address, _ = words
            parts = [address, address + HUGE, 0b1001000, address + HUGE, address + two, 0b1001000]
            return np.array(parts, dtype="<u8").tobytes()
        assert name == "page_bits"
        return b"\x80" * 512 + b"\x81" * 512

    state = page_state(QemuProcess(1, HostShell(unnamed)), Segment(0, 1 << 40, two))
    assert state.backed.tolist() == [False] * 512 + [True] * 512
    assert state.huge is not None
    assert state.huge.all()


def test_frames_are_read_and_absent_ones_left_out_and_left_absent(memory: Segment) -> None:
    pfns = np.array([0, 1, *range(FIRST, FIRST + PAGES), FIRST + PAGES], dtype=np.int64)
    read, contents = read_frames(US, [memory], pfns)
    assert read.tolist() == [FIRST + page for page in WRITTEN]
    assert contents[:, 0].tolist() == WRITTEN
    assert contents[:, 511].tolist() == [0xDEAD] * len(WRITTEN)
    present = page_state(US, memory).present
    assert np.flatnonzero(present).tolist() == WRITTEN, "reading must not populate"


def test_frames_of_several_segments(memory: Segment) -> None:
    half = PAGES // 2 * PAGE
    # The same memory as two banks with a hole between: the second begins at another guest address.
    banks = [
        Segment(memory.guest_physical, memory.host_virtual, half),
        Segment(1 << 32, memory.host_virtual + half, half),
    ]
    pfns = np.array([FIRST + 4, FIRST + 40, (1 << 20) + 8], dtype=np.int64)
    read, contents = read_frames(US, banks, pfns)
    assert read.tolist() == [FIRST + 4, (1 << 20) + 8]
    assert contents[:, 0].tolist() == [4, 40]


def test_nothing_to_read(memory: Segment) -> None:
    for wanted in ([], [1], [FIRST]):
        read, contents = read_frames(US, [memory], np.array(wanted, dtype=np.int64))
        assert (len(read), contents.shape) == (0, (0, 512))


def test_the_end_of_an_address_space_is_told() -> None:
    with pytest.raises(InfrastructureError, match="ended before"):
        page_state(US, Segment(0, 1 << 62, PAGE))


def test_status_is_in_bytes() -> None:
    values = status_bytes(US)
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPTE:")
    )
    assert abs(values["VmPTE"] - int(line.split()[1]) * 1024) < MIB
    assert values["VmRSS"] > 10 * MIB
    assert "Threads" not in values, "a count is no size"


def machine(memory: int) -> Machine:
    return Machine.model_validate({"memory": memory}, context={"resolved": True})


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (1 * GIB, [(MIB, GIB - MIB)]),
        (0xB000_0000 - MIB, [(MIB, 0xB000_0000 - 2 * MIB)]),
        # 2.75 GiB and more: 2 GiB stay below 4 GiB, the rest goes above.
        (0xB000_0000, [(MIB, 2 * GIB - MIB), (4 * GIB, 0x3000_0000)]),
        (6 * GIB, [(MIB, 2 * GIB - MIB), (4 * GIB, 4 * GIB)]),
    ],
)
def test_where_boot_memory_lies(memory: int, expected: list[tuple[int, int]]) -> None:
    domain = FakeDomain(device=None, addresses=lambda address: 0x7F00_0000_0000 + address)
    segments = ram_segments(domain, machine(memory))
    assert [(one.guest_physical, one.size) for one in segments] == expected
    assert all(one.host_virtual == 0x7F00_0000_0000 + one.guest_physical for one in segments)
    assert sum(one.size for one in segments) == memory - MIB


def test_the_virtio_mem_device_is_a_segment_as_large_as_it_may_grow() -> None:
    segments = ram_segments(FakeDomain(), machine(GIB))
    assert segments[-1] == Segment(DEVICE.address, DEVICE.address, DEVICE.maximum)


def test_each_plugged_dimm_is_a_segment() -> None:
    plugged = (Dimm("dimm0", 0, 6 * GIB, 256 * MIB), Dimm("dimm1", 1, 8 * GIB, 128 * MIB))
    segments = ram_segments(FakeDomain(plugged=plugged), machine(GIB))
    assert segments[-2:] == (
        Segment(6 * GIB, 6 * GIB, 256 * MIB),
        Segment(8 * GIB, 8 * GIB, 128 * MIB),
    )
    with pytest.raises(InfrastructureError, match=r"0x200000000\.\.0x208000000 in one piece"):
        ram_segments(
            FakeDomain(plugged=plugged, addresses=lambda address: address % (8 * GIB + MIB)), machine(GIB)
        )


@pytest.mark.parametrize("memory", [1, 2, 3, 8, 100])
def test_all_ram_lies_below_the_physical_end(memory: int) -> None:
    whole = {"memory": memory * GIB, "virtio_mem": {"size": 5 * GIB}, "dimms": [GIB // 2, GIB // 2]}
    made = Machine.model_validate(whole, context={"resolved": True})
    # Two GiB stay below 4 GiB at the least; devices begin at a whole GiB, each at the next one.
    boot = 4 * GIB + max(0, memory - 2) * GIB
    dimms = (
        Dimm("dimm0", 0, boot + 6 * GIB, GIB // 2),
        Dimm("dimm1", 1, boot + 7 * GIB, GIB // 2),
    )
    device = replace(DEVICE, address=boot, maximum=5 * GIB)
    segments = ram_segments(FakeDomain(device=device, plugged=dimms), made)
    assert max(one.guest_physical + one.size for one in segments) <= physical_end(made)


def test_memory_that_qemu_has_in_pieces_is_not_believed() -> None:
    domain = FakeDomain(
        device=None, addresses=lambda address: address if address < 512 * MIB else address + PAGE
    )
    with pytest.raises(InfrastructureError, match="in one piece"):
        ram_segments(domain, machine(GIB))
