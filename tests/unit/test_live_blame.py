"""A running machine's frames by block, class, cgroup and zone, of memory that is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from live_machine import BLOCK, MEMINFO, LiveMachine

from orchestrator.errors import InfrastructureError
from orchestrator.export.live_document import LiveDocument
from orchestrator.host.live_memory import read_live
from orchestrator.model.frames import (
    KPF_ANON,
    KPF_BUDDY,
    KPF_LRU,
    KPF_OFFLINE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_SLAB,
)
from orchestrator.model.live_memory import pieces
from orchestrator.model.memory_blocks import MemoryBlock, MemoryBlocks
from orchestrator.procfs import Zone, system_ram, zones

TABLE, SLAB, ANON = 1 << KPF_PGTABLE, 1 << KPF_SLAB, 1 << KPF_ANON | 1 << KPF_LRU
LOCKED, FILE = 1, 1 << KPF_LRU


def document(machine: LiveMachine, block_bytes: int | None = None) -> LiveDocument:
    return LiveDocument.of("here", read_live(machine.shell()), block_bytes, 1.0, 0.5)


def states(found: LiveDocument) -> list[str]:
    return [one.state for one in found.each_block]


@pytest.fixture
def machine() -> LiveMachine:
    """Six blocks: free, a table, a table and slab, anonymous, one frame without a flag, one offline."""
    one = LiveMachine.of(6, offline=frozenset({5}))
    one.flags[BLOCK + 5] = TABLE
    one.flags[2 * BLOCK + 7] = TABLE
    one.flags[2 * BLOCK + 8] = SLAB
    one.flags[3 * BLOCK : 3 * BLOCK + 10] = ANON
    one.flags[4 * BLOCK + 9] = 0
    one.flags[5 * BLOCK :] = 0
    one.cgroups = {BLOCK + 5: 77, 2 * BLOCK + 7: 77, 3 * BLOCK: 77, 3 * BLOCK + 1: 1, 3 * BLOCK + 2: 99}
    one.mapped = dict.fromkeys(range(3 * BLOCK, 3 * BLOCK + 10), 1)
    return one


def test_each_block_has_a_state(machine: LiveMachine) -> None:
    found = document(machine)
    assert states(found) == ["free", "pinned", "pinned", "movable", "unknown", "offline"]
    counts = found.blocks
    assert (counts.free, counts.movable, counts.pinned, counts.unknown, counts.offline) == (1, 1, 2, 1, 1)
    assert counts.lets_go == counts.together == 2
    assert [one.memory_block for one in found.each_block] == list(range(6))
    by_name = {one.frame_class: one for one in found.classes}
    assert (by_name["page_table"].blocks, by_name["page_table"].sole_blocker) == (2, 1)
    assert (by_name["slab"].blocks, by_name["slab"].sole_blocker) == (1, 0)
    assert by_name["unknown"].frames == found.unknown_frames == 1
    assert found.frees_most == "page_table"
    assert (found.frames, found.frames_changed) == (5 * BLOCK, 0), "nothing is read of what is offline"
    assert found.dma_pinned_pages == 7
    assert found.undecided == 0
    machine.flags[BLOCK + 6] = 0
    assert document(machine).undecided == 1


def test_by_blocks_of_another_size(machine: LiveMachine) -> None:
    fine = document(machine).blocks_2mib
    assert (fine.pinned, fine.movable, fine.unknown, fine.offline) == (2, 1, 1, 64)
    assert fine.free == 5 * 64 - 4
    assert document(machine, 2 << 20).blocks == fine
    coarse = document(machine, 256 << 20)
    assert states(coarse) == ["pinned", "pinned", "unknown"]
    assert coarse.each_block[0].frames == {"free": 2 * BLOCK - 1, "page_table": 1}
    assert coarse.each_block[2].frames == {"absent": BLOCK, "free": BLOCK - 1, "unknown": 1}
    assert coarse.each_block[0].memory_block is None


def test_whose_it_is(machine: LiveMachine) -> None:
    found = {one.inode: one for one in document(machine).cgroups}
    assert (found[77].path, found[77].blocks, found[77].sole_owner) == ("/a.service", 2, 1)
    assert found[77].frames == {"page_table": 2, "anonymous": 1}
    assert (found[1].path, found[1].blocks, found[1].movable_bytes) == ("/", 0, 4096)
    assert (found[99].path, found[99].movable_bytes) == ("", 4096), "one that has ended"
    assert (found[0].blocks, found[0].sole_owner) == (1, 0)
    assert found[0].frames == {"slab": 1, "anonymous": 7}
    machine.cgroups = None
    alone = document(machine)
    assert alone.no_cgroups == "the kernel has no /proc/kpagecgroup (CONFIG_MEMCG)"
    assert [one.inode for one in alone.cgroups] == [0]
    assert alone.blocks.pinned == 2


def test_what_looks_like_kernel_memory_for_a_moment_pins_nothing() -> None:
    machine = LiveMachine.of(4, later={10: FILE, BLOCK: 0, 3 * BLOCK: LOCKED}, cgroups={2 * BLOCK: 77})
    machine.flags[10] = LOCKED  # is being read from disk
    machine.flags[BLOCK] = LOCKED
    machine.flags[2 * BLOCK] = 0  # without a flag, and charged: kernel memory of somebody
    machine.flags[3 * BLOCK] = LOCKED
    found = document(machine)
    assert states(found) == ["movable", "pinned", "pinned", "pinned"]
    assert found.frames_changed == 1, "two of one class are no change"
    assert found.each_block[2].frames == {"free": BLOCK - 1, "kernel": 1}
    assert {one.inode: one.blocks for one in found.cgroups} == {0: 2, 77: 1}


def test_in_zone_movable_a_frame_without_a_flag_keeps_nothing() -> None:
    machine = LiveMachine.of(2)
    machine.flags[[5, BLOCK + 5]] = 0
    machine.zones = ("Normal", "Movable")
    found = document(machine)
    assert states(found) == ["unknown", "movable"]
    assert [(one.zone, one.unknown, one.movable) for one in found.zones] == [
        ("Normal", 1, 0),
        ("Movable", 0, 1),
    ]
    assert found.unknown_frames == 2


def test_what_the_kernel_refuses() -> None:
    """Block 0 spans two zones; block 1 has a hole, of which no class is counted."""
    machine = LiveMachine.of(3, iomem="00000000-0fffefff : System RAM\n10000000-17ffffff : System RAM\n")
    machine.zones = ("none", "Normal", "Normal")
    found = document(machine)
    assert states(found) == ["refused", "refused", "free"]
    assert found.each_block[1].frames == {"absent": 1, "free": BLOCK - 1}
    assert document(machine, 2 << 20).blocks.refused == 0, "blocks of 2 MiB are isolated by themselves"
    machine.flags[1] = TABLE
    assert states(document(machine)) == ["pinned", "refused", "free"]


def test_how_many_fit_elsewhere_together() -> None:
    """Three half full blocks, and one that is pinned and has free frames."""
    machine = LiveMachine.of(4)
    for block in range(3):
        machine.flags[block * BLOCK : block * BLOCK + BLOCK // 2] = ANON
    machine.flags[3 * BLOCK] = TABLE
    free = 3 * (BLOCK // 2) + BLOCK - 1
    machine.zoneinfo = machine.zoneinfo.replace(f"free     {4 * BLOCK}", f"free     {free}")
    found = document(machine)
    # Two need 2 * 16,384 of what is outside of them; a third would find 16,384 less and need as much more.
    assert (found.blocks.movable, found.blocks.together) == (3, 2)
    machine.zoneinfo = machine.zoneinfo.replace("min      100", "min      16500")
    assert document(machine).blocks.together == 1
    machine.zoneinfo = machine.zoneinfo.replace("min      16500", "min      50000")
    assert document(machine).blocks.together == 0
    machine.zoneinfo = machine.zoneinfo.replace("min      50000", "min      0").replace(
        f"free     {free}", f"free     {free + 1}"
    )
    machine.flags[3 * BLOCK] = 1 << KPF_BUDDY
    found = document(machine)
    assert (found.blocks.lets_go, found.blocks.together) == (4, 2), "what is taken is no room for the others"


def test_a_policy_is_judged_by_what_it_would_have_kept_together(machine: LiveMachine) -> None:
    machine.texts_too = {
        "/sys/module/memory_hotplug/parameters/online_policy": "auto-movable\n",
        "/sys/module/memory_hotplug/parameters/auto_movable_ratio": "300\n",
    }
    policy = document(machine).policy
    assert policy.settings["auto_online_blocks"] == "online"
    assert (policy.kernel_zone_pinned, policy.least_pinned, policy.unmovable_bytes) == (2, 1, 3 * 4096)
    assert policy.auto_movable_bytes == 5 * BLOCK * 4096 * 3 // 4
    machine.zones = ("Normal", "Movable", "Normal", "Normal", "Normal", "Normal")
    machine.texts_too = {}
    assert (document(machine).policy.kernel_zone_pinned, document(machine).policy.auto_movable_bytes) == (
        1,
        None,
    )


def test_sums_are_beside_those_of_the_kernel(machine: LiveMachine) -> None:
    machine.flags[3 * BLOCK + 20 : 3 * BLOCK + 24] = FILE
    machine.flags[4 * BLOCK : 5 * BLOCK] = 0
    machine.flags[10] = 1 << KPF_RESERVED
    machine.flags[20:22] = 1 << KPF_OFFLINE
    found = document(machine)
    sums = {one.name: (one.counted_bytes // 4096, one.difference_bytes) for one in found.checks}
    assert sums["AnonPages"] == (10, 0)
    assert sums["Slab"] == (1, -4096)
    assert sums["Cached + Buffers"] == (4, 0)
    assert "Mapped" not in sums, "the kernel does not say"
    assert sums["present"] == (5 * BLOCK, -BLOCK * 4096)
    assert sums["managed"] == (4 * BLOCK - 3, -(2 * BLOCK + 3) * 4096)
    free = 4 * BLOCK - 1 - 2 - 10 - 4 - 1 - 2
    assert sums["free"][0] == free
    assert found.uninitialised_frames == BLOCK
    assert found.pcp_frames == 3


def test_a_kernel_without_memory_blocks_is_counted_all_the_same(machine: LiveMachine) -> None:
    machine.zones = ()
    found = document(machine)
    assert (found.has_memory_blocks, found.memory_block_bytes) == (False, 128 << 20)
    assert len(found.each_block) == 6
    assert found.blocks.pinned == 2
    assert found.blocks.lets_go == 0, "the kernel refuses all"
    assert {one.zone for one in found.each_block} == {"Normal"}


def test_an_ordinary_user_is_told_what_to_type() -> None:
    with pytest.raises(InfrastructureError, match="only root may read /proc/kpageflags") as failed:
        document(LiveMachine.of(1, may=False))
    assert failed.value.hint == "sudo orchestrator blame live"


@pytest.mark.parametrize("name", ["kpageflags", "kpagecount", "kpagecgroup"])
def test_a_file_that_cannot_be_read_is_named(name: str) -> None:
    with pytest.raises(InfrastructureError, match=f"/proc/{name} of this machine cannot be read: I"):
        document(LiveMachine.of(1, broken=name))


def test_another_machine_may_say_what_it_likes(machine: LiveMachine) -> None:
    folder = "/sys/devices/system/memory"
    machine.texts_too = {f"{folder}/memory9/phys_index": "2\n", f"{folder}/memory8/phys_index": "no"}
    assert [one.memory_block for one in document(machine).each_block][:2] == [0, 1]
    assert len(document(machine).each_block) == 6, "one overlaps, one is nowhere"
    machine.texts_too = {f"{folder}/block_size_bytes": "800000000"} | {
        f"{folder}/memory{number}/phys_index": f"{number:x}" for number in range(600)
    }
    with pytest.raises(InfrastructureError, match="more than 16 TiB"):
        document(machine)
    assert len(zones("Node 0, zone Normal\n" * 9000)) == 8192


def test_memory_that_ends_early_is_absent(machine: LiveMachine) -> None:
    machine.flags = machine.flags[: 4 * BLOCK + 512]
    found = document(machine)
    assert found.each_block[4].frames == {"absent": BLOCK - 512, "free": 511, "unknown": 1}


def block(number: int, *, first: int, frames: int = BLOCK, state: str = "online") -> MemoryBlock:
    return MemoryBlock(number, first, frames, state, ("Normal",), 0, None)


def test_pieces_are_bounded_and_leave_out_what_is_not_there() -> None:
    blocks = [block(n, first=n * BLOCK) for n in range(40)] + [block(64, first=64 * BLOCK)]
    assert list(pieces(blocks)) == [(0, 32 * BLOCK), (32 * BLOCK, 8 * BLOCK), (64 * BLOCK, BLOCK)]
    blocks[3] = replace(blocks[3], state="offline")
    assert list(pieces(blocks))[:2] == [(0, 3 * BLOCK), (4 * BLOCK, 28 * BLOCK)]
    large = [block(0, first=0, frames=3 << 20), block(1, first=3 << 20, frames=3 << 20)]
    assert list(pieces(large)) == [(n << 20, 1 << 20) for n in range(6)]
    assert list(pieces([])) == []


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_every_online_frame_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    there = np.flatnonzero(random.random(200) < 0.7)
    blocks = [
        block(int(n), first=int(n) * BLOCK, state="online" if random.random() < 0.8 else "offline")
        for n in there
    ]
    read = [pfn // BLOCK for first, count in pieces(blocks) for pfn in range(first, first + count, BLOCK)]
    assert read == [one.number for one in blocks if one.online]


def test_what_zoneinfo_says() -> None:
    text = LiveMachine.of(2).zoneinfo
    assert zones(text) == (
        Zone(0, "Normal", 2 * BLOCK, 100, 2 * BLOCK, 2 * BLOCK, 2 * BLOCK, 3, 0, (0, 0, 0, 0)),
        Zone(0, "Movable", min=32, protection=(0, 0, 0, 0)),
    )
    assert zones("pages free 5\n") == ()


def test_ram_is_whole_frames() -> None:
    text = (
        "00001000-0009fbff : System RAM\n  00001000-00001fff : x\n100000000-13fffffff : System RAM (kmem)\n"
    )
    assert list(system_ram(text)) == [(1, 0x9F), (0x100000, 0x140000)]
    assert list(system_ram("00000000-00000000 : System RAM\n")) == [], "what an ordinary user reads"


@pytest.mark.parametrize("size", ["", "x", "0", "1000", "18000000", "ffffffffffffffff"])
def test_a_size_of_blocks_that_makes_no_sense_is_none(size: str) -> None:
    texts = {"/sys/devices/system/memory/block_size_bytes": size}
    assert not MemoryBlocks.of(texts, [(0, 5)], ()).real
    assert MEMINFO.startswith("MemTotal")
