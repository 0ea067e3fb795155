"""The domains of a libvirt daemon, asked read-only, with an end to the wait.

Their XML is all that is asked for: libvirt then needs neither a job on the domain nor QEMU's monitor.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from orchestrator.deadline import Deadline
from orchestrator.host.domain_memory import MOST_XML_BYTES, DomainMemory, read_domain
from orchestrator.host.libvirt_host import libvirt_module

_MOST_DOMAINS = 10_000


class DomainReader:
    """One libvirt, asked again and again; while an old question is not answered, none is put."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._asking: threading.Thread | None = None

    def read(self, deadline: Deadline) -> tuple[tuple[DomainMemory, ...], str]:
        """Its live domains, and why there are none, if it was not to be asked."""
        if self._asking is not None and self._asking.is_alive():
            return (), f"{self.uri} has not answered yet what it was asked before"
        answer: queue.Queue[tuple[tuple[DomainMemory, ...], str]] = queue.Queue()
        # libvirt's calls cannot be interrupted; a thread that waits for one ends with this process.
        self._asking = threading.Thread(
            target=lambda: answer.put(_domains(self.uri)), name="asking libvirt", daemon=True
        )
        self._asking.start()
        try:
            return answer.get(timeout=deadline.remaining)
        except queue.Empty:
            return (), f"{self.uri} did not answer in {deadline.seconds:.0f} s"


def _domains(uri: str) -> tuple[tuple[DomainMemory, ...], str]:
    libvirt = libvirt_module(None)
    try:
        connection = libvirt.openReadOnly(uri)
    except libvirt.libvirtError as error:
        return (), f"{uri}: {error}"
    try:
        running = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[:_MOST_DOMAINS]
        found = [domain for handle in running if (domain := _domain(libvirt, handle)) is not None]
    except libvirt.libvirtError as error:
        return (), f"{uri}: {error}"
    finally:
        connection.close()
    return tuple(found), ""


def _domain(libvirt: Any, handle: Any) -> DomainMemory | None:  # libvirt-python has no types
    try:
        text: str = handle.XMLDesc(0)
    except libvirt.libvirtError:
        return None  # it has ended
    return read_domain(text) if len(text) <= MOST_XML_BYTES else None
