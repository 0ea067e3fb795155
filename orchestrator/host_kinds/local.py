"""This machine, by libvirt's embedded driver: no daemon, no clash between runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.host_kinds.base import HOST_KINDS, LOCAL, HostKind, OpenHost, Site


@HOST_KINDS.register(LOCAL)
class Local(HostKind):
    """This machine."""

    pattern = form = LOCAL

    @property
    def takes_our_memory(self) -> bool:
        return True

    def address(self, runtime: Path) -> None:
        del runtime

    @contextmanager
    def open(self, site: Site) -> Iterator[OpenHost]:
        from orchestrator.host.accel import chosen_meanwhile
        from orchestrator.launch.environment import SharedHost
        from orchestrator.launch.host_facts import host_facts

        cache = site.places.cache
        with ExitStack() as stack:
            # libvirt takes seconds to know a QEMU that it has not met, a KVM that hangs its deadline, and
            # neither needs the other.
            with chosen_meanwhile(site.accel, site.kernel, cache) as chosen:
                host = stack.enter_context(self.connect(site.runtime, cache))
                opened = OpenHost(host, chosen(), host_facts(host), SharedHost())
            yield opened
