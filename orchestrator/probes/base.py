"""The shape of a probe: which files of the guest it wants, or what it reads on the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.guest.sampler import Tick
from orchestrator.host.domain import Dimm, Domain
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import Segment, ram_segments
from orchestrator.host.shell import HostShell
from orchestrator.model.second_level import device_pages
from orchestrator.observation import Reading
from orchestrator.registry import Registry


@dataclass(frozen=True)
class HostView:
    """What a probe of the host side may look at. `accel` is what the guest runs under: kvm or tcg."""

    domain: Domain
    machine: Machine
    accel: str
    _segments: dict[tuple[Dimm, ...], tuple[Segment, ...]] = field(default_factory=dict, repr=False)

    @property
    def shell(self) -> HostShell:
        """The machine itself."""
        return self.domain.qemu.shell

    @cached_property
    def devices(self) -> NDArray[np.int64]:
        """Pages at which the guest finds devices; as `device_pages` gives them."""
        return device_pages(*self.domain.pci_memory())

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Where the guest's RAM lies in QEMU: changes only when a DIMM comes or goes."""
        dimms = self.domain.dimms() if self.machine.dimms else ()
        if dimms not in self._segments:
            self._segments.clear()
            self._segments[dimms] = ram_segments(self.domain, self.machine)
        return self._segments[dimms]


class Probe:
    """Reads something at every sample. What cannot be read is a Reading with a gap, never left out."""

    guest_files: ClassVar[tuple[str, ...]] = ()
    """Files of the guest that the sampler brings along for `from_guest`."""

    def from_guest(self, tick: Tick) -> Iterator[Reading]:  # noqa: ARG002  # for those that override it
        """Readings from the guest's files."""
        yield from ()

    def from_bare_host(self, shell: HostShell) -> Iterator[Reading]:  # noqa: ARG002  # as above
        """Readings from the host before the guest is started: a baseline."""
        yield from ()

    def from_host(self, host: HostView) -> Iterator[Reading]:  # noqa: ARG002  # for those that override it
        """Readings from the host. May raise InfrastructureError or OSError: that becomes the gap."""
        yield from ()


_COUNT = re.compile(r"[0-9]{1,20}")

PROBES: Registry[type[Probe]] = Registry("probe", "orchestrator.probes")


def is_count(text: str) -> bool:
    """Whether a guest's text is a plain u64: it could be anything."""
    return _COUNT.fullmatch(text) is not None
