"""A KVM host that is itself a guest of this machine: each trial has one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import BadInputError
from orchestrator.host_kinds.base import HOST_KINDS, HostKind, OpenHost, Site


@HOST_KINDS.register("nested")
class Nested(HostKind):
    """A host for each trial; what all of them share is what they are booted from."""

    pattern = form = "nested"
    is_guest = True
    shared = False

    def problems(self, accel: str) -> tuple[BadInputError, ...]:
        if accel != "tcg":
            return ()
        return (
            BadInputError(
                "a nested host runs its guests by KVM, and the scenario asks for `accel: tcg`",
                hint="leave `accel` out: what has no KVM emulates the host",
            ),
        )

    def address(self, runtime: Path) -> None:
        del runtime

    @contextmanager
    def open(self, site: Site) -> Iterator[OpenHost]:
        from orchestrator.host.accel import Acceleration
        from orchestrator.launch.nested import NestedHosts

        hosts = NestedHosts.of(site.places, site.keys, site.note)
        reason = f"KVM of a nested host, itself under {hosts.accel}: counts are comparable, times are not"
        with self.connect(site.runtime, site.places.cache) as here:
            # The trial's host is there only in the trial, which says what it is.
            yield OpenHost(here, Acceleration("kvm", reason, ""), {}, hosts)
