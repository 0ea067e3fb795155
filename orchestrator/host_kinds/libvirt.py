"""The libvirt behind a URI: a daemon of this machine, or of one that ssh reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from orchestrator.host_kinds.base import HOST_KINDS, HostKind, OpenHost, Site

if TYPE_CHECKING:
    from orchestrator.host.ssh import SshTarget


@HOST_KINDS.register("libvirt")
class Libvirt(HostKind):
    """A libvirt that others may use as well."""

    pattern = r"qemu\+ssh://[A-Za-z0-9._@:\[\]-]+/system"
    form = "qemu+ssh://USER@HOST/system"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        return cls(text) if re.match(r"[a-z][a-z0-9+]*:/", text) else None

    @property
    def elsewhere(self) -> bool:
        return urlsplit(self.text).netloc != ""

    @property
    def machine_name(self) -> str:
        return urlsplit(self.text).hostname or super().machine_name

    def address(self, runtime: Path) -> str | SshTarget:
        del runtime
        return self.text

    @contextmanager
    def open(self, site: Site) -> Iterator[OpenHost]:
        from orchestrator.host.accel import choose
        from orchestrator.launch.environment import SharedHost
        from orchestrator.launch.host_facts import host_facts

        cache = site.places.cache
        # It has to be reached before it can be asked.
        with self.connect(site.runtime, cache) as host:
            chosen = choose(site.accel, site.kernel, cache, host.shell)
            yield OpenHost(host, chosen, host_facts(host), SharedHost())
