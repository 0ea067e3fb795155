"""A guest's console and kernel log: complaints, OOM kills, panics, and what causes say of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.guest.console import Console
from orchestrator.guest.kernel_log import find_complaints
from orchestrator.guest.oom_log import find_kills, in_words
from orchestrator.printable import clean, clean_block, printable
from targets.base import TARGETS, Target, scratch

_LINES = """\
[    0.000000] Linux version 6.12.57+deb13-cloud-amd64
[   12.345678] Out of memory: Killed process 812 (redis-server) total-vm:12kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0
[   12.345678] Memory cgroup out of memory: Killed process 9 (a (b) c) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB
[   13.000000] BUG: Bad page map in process a  pte:8000000012345067 pmd:12345067
[   14.000000] Kernel panic - not syncing: Fatal exception in interrupt
[   15.000000] EXT4-fs error (device vda): ext4_find_entry:1683: inode #2: comm a: reading directory
[   16.000000] blk_update_request: I/O error, dev vda, sector 12 op 0x1:(WRITE)
[   17.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:12]
[   18.000000] WARNING: CPU: 0 PID: 12 at mm/page_alloc.c:4711 __alloc_pages+0x1/0x2
""".splitlines()
_ESCAPES = frozenset("\x1b\x07\x08\x7f\x9b\x9d\x90\u202e\u2066\u200b\ufeff\u2028")


@TARGETS.register("kernel-log")
class KernelLog(Target):
    name: ClassVar = "kernel-log"
    executions: ClassVar = 4_000
    most_bytes: ClassVar = 4_000
    tokens: ClassVar = (
        *(
            "Killed process ",
            "Out of memory: ",
            "Kernel panic - not syncing",
            "BUG: ",
            "Oops: ",
            "I/O error, dev vd",
        ),
        *("WARNING: ", " at mm/", "\x1b[31m", "\x1b]8;;x\x07", "\u202e", "\r\n", "\x9b2J", "pgtables:1kB"),
    )

    def seeds(self) -> Iterator[bytes]:
        yield "\n".join(_LINES).encode()
        yield from (line.encode() for line in _LINES)

    def feed(self, data: bytes) -> None:
        path = scratch() / "console.log"
        path.write_bytes(data)
        console = Console(path)
        text = console.text()
        shown = [
            text,
            console.tail(),
            console.panic(),
            clean(data.decode(errors="replace")),
            clean_block(text),
        ]
        complaints, stalls = find_complaints(printable(text))
        kills = find_kills(text)
        shown += [*complaints, *stalls, *map(in_words, kills)]
        assert len(kills) <= 50
        for one in shown:
            assert not _ESCAPES & set(one), f"shown as it came: {one[:80]!r}"
