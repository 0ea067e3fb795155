"""The stream of the sampler in a guest, and the probes that read its files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.guest.sampler import read_ticks
from orchestrator.observation import Observation
from orchestrator.probes import PROBES
from orchestrator.store.tables import record_batch
from targets.base import GOLDEN, TARGETS, Target

FILES = {
    "/proc/meminfo": (GOLDEN / "meminfo-7.x.txt").read_bytes(),
    "/proc/vmstat": (GOLDEN / "vmstat-7.x.txt").read_bytes()[:1500],
    "/proc/pagetypeinfo": (GOLDEN / "pagetypeinfo-7.x.txt").read_bytes(),
    "/proc/pressure/memory": b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0 avg300=0 total=1\n",
    "/proc/sys/kernel/random/boot_id": b"c2a1d1a4-0000\n",
}
_STATUS = b"Name:\tredis\nUid:\t0\t0\t0\t0\nVmSize:\t  12 kB\nVmRSS:\t  8 kB\nVmPTE:\t  4 kB\n"


def tick(uptime_ns: int, files: dict[str, bytes]) -> bytes:
    """A tick as guest-probe writes it."""
    parts = [b"#tick %d\n" % uptime_ns]
    parts += [b"#file %s %d\n%s\n" % (path.encode(), len(text), text) for path, text in files.items()]
    parts += [b"#process redis-server 812\n#file /proc/812/status %d\n%s\n" % (len(_STATUS), _STATUS)]
    return b"".join([*parts, b"#file /proc/gone -1\n\n#end\n"])


@TARGETS.register("sampler-stream")
class SamplerStream(Target):
    name: ClassVar = "sampler-stream"
    executions: ClassVar = 5_000
    most_bytes: ClassVar = 8_000
    tokens: ClassVar = (
        "#tick ",
        "#end\n",
        "#file ",
        "#process ",
        " -1\n",
        "#file /proc/vmstat 0\n\n",
        " kB\n",
    )

    def seeds(self) -> Iterator[bytes]:
        yield tick(10**9, {path: text[:300] for path, text in FILES.items()}) + b"#tick 2000000000\n#end\n"
        for path, text in FILES.items():
            yield tick(10**9, {path: text})

    def feed(self, data: bytes) -> None:
        pieces = iter([data[at : at + 700] for at in range(0, len(data), 700)])
        probes = [(name, probe()) for name, probe in PROBES]
        kept: list[Observation] = []
        try:
            for one in read_ticks(lambda _most: next(pieces, b"")):
                for name, probe in probes:
                    kept += probe.observe(name, 1, "t", probe.from_guest(one), 1 << 30)
        finally:
            record_batch(kept[:200])
