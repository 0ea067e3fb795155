"""How many processes want a CPU of the guest."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe


@PROBES.register("added")
class LoadAverage(Probe):
    """`/proc/loadavg` of the guest, over the last minute."""

    guest_files = ("/proc/loadavg",)

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        words = (tick.files["/proc/loadavg"] or "").split()
        yield Reading("load", float(words[0]) if words else None, "", gap="" if words else "no /proc/loadavg")
