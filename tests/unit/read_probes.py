"""What probes read of a tick of a guest, or of a host, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from fakes import MACHINE, FakeDomain

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes import PROBES, HostView


def guest(name: str, tick: Tick) -> list[Reading]:
    return declared(name, PROBES[name]().from_guest(tick))


def host(name: str, domain: FakeDomain, accel: str = "kvm") -> list[Reading]:
    return declared(name, PROBES[name]().from_host(HostView(domain, MACHINE, accel)))


def declared(name: str, readings: Iterable[Reading]) -> list[Reading]:
    """The readings; all are of series that the probe declares."""
    found = list(readings)
    PROBES[name].observe(name, 0, "t", found)
    return found


def values(readings: list[Reading]) -> dict[str, float | None]:
    names = [(reading.source, reading.name) for reading in readings]
    assert len(set(names)) == len(names), "a name twice in one sample"
    return {reading.name: reading.value for reading in readings}
