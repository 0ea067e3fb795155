"""The virtio-mem device over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.report.over_time import OverTime, Reading
from orchestrator.report.section import SECTIONS


@SECTIONS.register("virtio-mem")
@dataclass(frozen=True)
class VirtioMem(OverTime):
    """A panel for each arm."""

    order: ClassVar = 100
    title: ClassVar = "Resizable memory"
    lead: ClassVar = (
        "Size of the virtio-mem device: solid is what is plugged, dashed what the host asks for. Where they "
        "stay apart, the guest could not give the rest back."
    )
    readings: ClassVar = (
        Reading("virtio_mem", "size", "plugged"),
        Reading("virtio_mem", "requested_size", "requested", dashed=True),
    )
