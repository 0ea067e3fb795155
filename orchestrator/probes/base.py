"""The shape of a probe: its series, and which files of the guest it wants or what it reads on the host.

`validate` asks for the series, too: a probe imports nothing heavy before it reads something.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Observation, Reading
from orchestrator.registry import Registry
from orchestrator.series import Series
from orchestrator.units import format_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.guest.sampler import Tick
    from orchestrator.host.domain import Dimm, Domain
    from orchestrator.host.machine import Machine
    from orchestrator.host.qemu_process import Segment
    from orchestrator.host.shell import HostShell


@dataclass(frozen=True)
class HostView:
    """What a probe of the host side may look at. `accel` is what the guest runs under (`records.accel`)."""

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
        from orchestrator.model.second_level import device_pages

        return device_pages(*self.domain.pci_memory())

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Where the guest's RAM lies in QEMU: changes only when a DIMM comes or goes."""
        from orchestrator.host.qemu_process import ram_segments

        dimms = self.domain.dimms() if self.machine.dimms else ()
        if dimms not in self._segments:
            self._segments.clear()
            self._segments[dimms] = ram_segments(self.domain, self.machine)
        return self._segments[dimms]


class Probe:
    """Reads something at every sample. What cannot be read is a Reading with a gap, never left out."""

    series: ClassVar[tuple[Series, ...]] = ()
    """All that it reads: the first that covers a reading's name says what the reading is."""

    outlives_guest: ClassVar[bool] = False
    """Whether `from_host` says something when QEMU has ended, too: it is asked once more then."""

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

    @classmethod
    def series_of(cls, name: str) -> Series | None:
        """The series to which readings of that name belong."""
        return next((one for one in cls.series if one.covers(name)), None)

    @classmethod
    def observe(
        cls, source: str, t_ns: int, trial: str, readings: Iterable[Reading], memory: int | None = None
    ) -> list[Observation]:
        """Readings as observations of a trial, `source` being the probe's name. What would take more than
        `memory`, the bytes that the guest can have, becomes a gap. Raises LookupError for a reading of no
        series that it declares."""
        return [
            _observed(series, source, t_ns, trial, _believed(series, one, memory))
            for one, series in ((one, cls.series_of(one.name)) for one in readings)
        ]


@dataclass(frozen=True)
class DeclaredSeries:
    """A series, and the name of its probe: the `source` of its observations."""

    source: str
    series: Series

    def __str__(self) -> str:
        return f"{self.source}/{self.series.name}"


_COUNT = re.compile(r"[0-9]{1,20}")

PROBES: Registry[type[Probe]] = Registry("probe", "orchestrator.probes")


def is_count(text: str) -> bool:
    """Whether a guest's text is a plain u64: it could be anything."""
    return _COUNT.fullmatch(text) is not None


def declared_series() -> tuple[DeclaredSeries, ...]:
    """The series of all probes, by the names of these, and of one probe as it declares them."""
    return tuple(DeclaredSeries(source, one) for source, probe in PROBES for one in probe.series)


def moment_series(declared: Iterable[DeclaredSeries]) -> dict[str, DeclaredSeries]:
    """Those of the series that are read at moments with a name, by their columns of moments.csv.

    Raises ValueError where two have one column, in which a measured value could not be told from a predicted
    one.
    """
    found: dict[str, DeclaredSeries] = {}
    for one in declared:
        column = one.series.moment
        if column in found:
            raise ValueError(f"{found[column]} and {one} have one column of moments.csv, {column!r}")
        if column:
            found[column] = one
    return found


def _believed(series: Series | None, reading: Reading, memory: int | None) -> Reading:
    """A reading, or that there is none: a guest may say what it likes, and a process of it may mount over its
    /proc."""
    if series is None or memory is None or reading.value is None:
        return reading
    claimed = float(reading.value) * series.memory_bytes
    if claimed <= memory:
        return reading
    gap = f"the guest says {format_size(claimed)}, and it has {format_size(memory)} at most"
    return replace(reading, value=None, gap=gap)


def _observed(series: Series | None, source: str, t_ns: int, trial: str, reading: Reading) -> Observation:
    if series is None:
        raise LookupError(f"{source} declares no series {reading.name!r}")
    return Observation(
        t_ns=t_ns,
        trial=trial,
        source=f"{source}/{reading.source}" if reading.source else source,
        name=reading.name,
        value=None if reading.value is None else float(reading.value),
        unit=series.unit,
        origin=series.origin,
        gap=reading.gap,
    )
