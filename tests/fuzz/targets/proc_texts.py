"""Texts of /proc and /sys, of a guest or of any process of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from orchestrator import procfs
from orchestrator.host.mappings import parse_mappings, unseen_tables
from orchestrator.host.vmm import read_command
from targets.base import GOLDEN, TARGETS, Target

_STAT = b"812 (redis) S 1 812 812 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 4 0 4711 1000 20 18446744073709551615 0"
_ZONEINFO = (
    b"Node 0, zone   Normal\n  pages free     77\n        min      5\n        spanned  9\n        present  9\n"
    b"        managed  8\n        protection: (0, 0, 0, 0, 0)\n    cpu: 0\n              count:    12\n  start_pfn:           4096\n"
)
_PRESSURE = (
    b"some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
)
_READERS: tuple[tuple[Callable[[str], object], tuple[bytes, ...]], ...] = (
    (procfs.kib_lines, ((GOLDEN / "meminfo-6.12.txt").read_bytes(),)),
    (procfs.counters, ((GOLDEN / "vmstat-6.12.txt").read_bytes()[:2000],)),
    (
        lambda text: (procfs.processors(text), procfs.of_first_processor(text, "model name")),
        (b"processor\t: 0\nmodel name\t: a\n",),
    ),
    (
        lambda text: procfs.second_level_bytes(procfs.kib_lines(text), text),
        (b"SecPageTables:  12 kB\nnr_iommu_pages 4\n",),
    ),
    (lambda text: (procfs.stalled_percent(text), procfs.stalled_seconds(text)), (_PRESSURE,)),
    (
        lambda text: procfs.process_status(*[*text.split("\n@@\n", 1), ""][:2]),
        (_STAT + b"\n@@\nUid:\t0\t0\nVmRSS:\t 8 kB\n",),
    ),
    (procfs.process_state, (_STAT,)),
    (procfs.system_unit, (b"0::/system.slice/ssh.service\n", b"4:name=systemd:/a.slice/b.service\n")),
    (lambda text: procfs.memory_cgroup(text).events, (b"0::/user.slice/a\n", b"9:memory:/a\n0::/\n")),
    (procfs.may_trace, (b"CapEff:\t000001ffffffffff\n",)),
    (procfs.zones, (_ZONEINFO,)),
    (
        lambda text: list(procfs.system_ram(text)),
        (b"00001000-0009fbff : System RAM\n100000000-23fffffff : System RAM\n",),
    ),
    (
        lambda text: unseen_tables(parse_mappings(text, {"00:0f": 1 << 21})),
        (
            b"7f0000000000-7f0000200000 rw-p 00000000 00:00 0 \n7f00-7fff rw-s 00000000 00:05 12 /dev/dri/card0\n",
        ),
    ),
    (
        lambda text: read_command(text.split("\0")),
        (
            b'qemu-system-x86_64\0-name\0guest=a,debug-threads=on\0-m\0size=1048576k,slots=4,maxmem=8G\0-object\0{"qom-type":"memory-backend-ram","id":"m","size":1073741824}\0-device\0{"driver":"virtio-mem-pci","memdev":"m"}',
            b"cloud-hypervisor\0--memory\0size=1G,hotplug_method=virtio-mem\0--kernel\0/k",
        ),
    ),
)


@TARGETS.register("proc-texts")
class ProcTexts(Target):
    """The first byte of an input says which text it is."""

    name: ClassVar = "proc-texts"
    executions: ClassVar = 300_000
    most_bytes: ClassVar = 4_000
    tokens: ClassVar = (
        " kB\n",
        "Uid:\t0",
        "\n@@\n",
        "Node 0, zone ",
        ": System RAM\n",
        "0::/../",
        "-0 rw-s ",
        "memory-backend-",
    )

    def seeds(self) -> Iterator[bytes]:
        for number, (_, texts) in enumerate(_READERS):
            yield from (bytes([number]) + text for text in texts)

    def feed(self, data: bytes) -> None:
        read, _ = _READERS[(data[0] if data else 0) % len(_READERS)]
        read(data[1:].decode(errors="replace"))
