"""How many processes want a CPU of the guest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.series import Series


@PROBES.register("added")
class LoadAverage(Probe):
    """`/proc/loadavg` of the guest, over the last minute."""

    series: ClassVar = (Series("load", "count", "processes that run or wait to, over the last minute"),)
    guest_files: ClassVar = ("/proc/loadavg",)

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        words = (tick.files["/proc/loadavg"] or "").split()
        yield Reading("load", float(words[0]) if words else None, gap="" if words else "no /proc/loadavg")
