"""`blame live` of a real guest, reached as any machine is; then its memory blocks are taken offline."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

from driver import Orchestrator, end, wait_for_line

from orchestrator.export.live_document import LiveDocument
from orchestrator.guest.cache import cache_dir
from orchestrator.guest.keys import ensure_keys
from orchestrator.host.live_memory import read_live
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import own_target

SCENARIO = """\
version: 1
name: live
guest: debian-13
machine: {vcpus: 2, memory: 2GiB, virtio_mem: {size: 1GiB}}
setup: {online_policy: online_movable}
arms: {only: {}}
steps:
  - plug: {to: 512MiB}
  - start: {workload: tmpfs, set: {amount: 384MiB}}
  - start: {workload: sparse-map, set: {span: 20GiB}}
  - wait: {time: 10min}
"""
BOOT_SECONDS = 600.0
# One attempt of the kernel's has no end of its own where pages do not move.
OFFLINE = 'import sys; open(sys.argv[1], "w").write("offline")'
ATTEMPT_SECONDS = 20


def take_offline(shell: HostShell, number: int) -> bool:
    """Whether the kernel let it go."""
    folder = f"/sys/devices/system/memory/memory{number}"
    argv = ["timeout", str(ATTEMPT_SECONDS), "python3", "-c", OFFLINE, f"{folder}/state"]
    shell.run(argv, seconds=4 * ATTEMPT_SECONDS, check=False)
    return shell.text(f"{folder}/state").strip() == "offline"


def test_what_could_be_taken_offline_can_be(orchestrator: Orchestrator, tmp_path: Path) -> None:
    scenario, log = tmp_path / "live.yaml", tmp_path / "log"
    scenario.write_text(SCENARIO)
    process = orchestrator.start(scenario, log)
    try:
        wait_for_line(log, "wait", BOOT_SECONDS)
        # Of the guest that was saved there may be one as well, from before.
        known = max(orchestrator.runtime.rglob("known_hosts*"), key=lambda path: path.stat().st_mtime)
        port = re.search(r"\[127\.0\.0\.1\]:(\d+)", known.read_text())
        assert port
        target = own_target(int(port[1]), ensure_keys(cache_dir()).client, known, tmp_path)
        with remote_shell(target) as shell:
            found = LiveDocument.of("the guest", read_live(shell), None, 0.0, 0.0)
            went: Counter[tuple[str, bool]] = Counter()
            for block in reversed(found.each_block):
                assert block.memory_block is not None
                if block.state != "refused":
                    went[block.state, take_offline(shell, block.memory_block)] += 1
            told = {f"{state} {'went' if gone else 'stayed'}": count for (state, gone), count in went.items()}
    finally:
        end(process, signal.SIGTERM)
    lets_go = sum(count for (state, _), count in went.items() if state in {"free", "movable"})
    let_go = went["free", True] + went["movable", True]
    movable = went["movable", True] + went["movable", False]
    pinned = went["pinned", True] + went["pinned", False]
    assert lets_go >= 2, told
    assert pinned >= 2, told
    assert movable >= 2, told
    assert {one.zone for one in found.each_block} == {"DMA32", "Movable"}
    assert went["movable", True] >= 0.7 * movable, told
    # What is taken is no room for the others: so many as were said to fit, and no more, can go.
    assert abs(let_go - found.blocks.together) <= 2, (told, found.blocks)
    # Unmovable memory may come into a block while others are tried; a guess would be as often right of both.
    assert let_go >= 0.8 * lets_go, told
    assert went["pinned", True] <= 0.2 * pinned, told
