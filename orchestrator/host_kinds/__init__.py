"""Where guests can run. One file per kind of host; each registers itself in `HOST_KINDS`."""

from orchestrator.host_kinds.base import (
    HOST_KINDS,
    LOCAL,
    HostKind,
    Site,
    host_kind,
    is_guest,
    is_shared,
    takes_our_memory,
)

__all__ = [
    "HOST_KINDS",
    "LOCAL",
    "HostKind",
    "Site",
    "host_kind",
    "is_guest",
    "is_shared",
    "takes_our_memory",
]
