"""page_owner's answers, as a 6.12 kernel gave them, and who is behind them."""

from __future__ import annotations

import io
import struct

import pytest

from orchestrator.guest.page_owner import PageOwners, read_owners
from orchestrator.guest.stream import Stream, StreamError
from orchestrator.model.snapshot import Evidence

ALLOCATOR = """\
 get_page_from_freelist+0x1467/0x1530
 __alloc_pages_noprof+0x152/0x310
"""
SOCKET = f"""{ALLOCATOR} alloc_pages_mpol_noprof+0xd1/0x190
 skb_page_frag_refill+0x69/0xe0
 sk_page_frag_refill+0x1c/0xa0
 tcp_sendmsg_locked+0x21e/0xd20
"""
STACK = f"""{ALLOCATOR} alloc_pages_bulk_noprof+0x42c/0x6d0
 __vmalloc_node_range_noprof+0x228/0x7b0
 copy_process+0xca1/0x20e0
 kernel_clone+0xad/0x310
"""
PIPE = f"""{ALLOCATOR} alloc_pages_mpol_noprof+0xd1/0x190
 pipe_write+0x33a/0x6c0
 vfs_write+0x2f5/0x440
"""
TABLE = f"""{ALLOCATOR} pte_alloc_one+0x15/0xf0
 __pte_alloc+0x2a/0x1b0
"""


def said(stacks: list[str], records: list[tuple[int, int, int]], *, cut: bool = False) -> bytes:
    parts = [f"#stack {len(stack)}\n{stack}\n".encode() for stack in stacks]
    packed = b"".join(struct.pack("<QII", *record) for record in records)
    return b"".join(parts) + b"#owners %d %d\n%b\n" % (len(packed), cut, packed)


def owners(raw: bytes) -> PageOwners:
    return read_owners(Stream(io.BytesIO(raw).read))


def test_what_frames_are_used_for() -> None:
    records = [(8, 3, 0), (20, 0, 1), (21, 0, 2), (22, 1, 2), (30, 0, 3), (31, 0, 2**32 - 1)]
    found = owners(said([SOCKET, STACK, PIPE, TABLE], records))
    evidence = found.evidence(40)
    assert {
        kind: (evidence == kind).nonzero()[0].tolist() for kind in Evidence if (evidence == kind).any()
    } == {
        Evidence.NONE: [*range(8), *range(16, 20), *range(21, 30), *range(31, 40)],
        Evidence.NETWORK: list(range(8, 16)),
        Evidence.KERNEL_STACK: [20],
        Evidence.TABLE: [30],
    }
    assert found.callers() == "pipe_write 3"


def test_a_chunk_that_reaches_past_the_end() -> None:
    found = owners(said([SOCKET], [(8, 3, 0), (1 << 39, 20, 0)]))
    assert found.evidence(10).tolist() == [0] * 8 + [Evidence.NETWORK] * 2


def test_a_reader_that_was_killed() -> None:
    found = owners(said([SOCKET], [(8, 3, 0)], cut=True))
    assert found.cut
    assert found.pfn.tolist() == [8]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"Segmentation fault\n",
        b"#stack 99999999\n",
        b"#owners 15 0\n" + b"x" * 16,
        b"#owners 99999999999 0\n",
        b"#owners 0\n\n",
        b"#stack 3\nabc\n" * 5000,
    ],
)
def test_what_makes_no_sense(raw: bytes) -> None:
    with pytest.raises(StreamError):
        owners(raw)
