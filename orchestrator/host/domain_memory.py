"""What libvirt says of a live domain's memory. Pure: it is read from the domain's XML.

Another user's libvirt may be the source, so the text is bounded and nothing in it is followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from orchestrator.units import GIB, KIB, MIB, TIB

MOST_XML_BYTES = 1 << 18

# virScaleInteger(), src/util/virutil.c.
_UNITS = {
    "b": 1,
    "bytes": 1,
    "": KIB,
    "k": KIB,
    "KiB": KIB,
    "M": MIB,
    "MiB": MIB,
    "G": GIB,
    "GiB": GIB,
    "TiB": TIB,
}
_UNITS |= {"KB": 1000, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class DomainMemory:
    """A domain; bytes. None where the XML does not say."""

    name: str
    uuid: str
    pid: int | None
    """Of its QEMU; only libvirt's own file says that."""
    kvm: bool
    boot: int
    """What it boots with, without any memory device."""
    dimms: tuple[int, ...]
    balloon: int | None
    """What the balloon leaves of boot memory and DIMMs; None without one."""
    virtio_mem: tuple[VirtioMemMemory, ...]
    free_slots: int
    """For DIMMs that may be plugged yet."""
    room: int = 0
    """Up to what its memory may grow, in more bytes (<maxMemory>)."""
    dimm_aliases: tuple[str, ...] = ()
    """What libvirt calls each DIMM; a program that plugs one may choose it ("ua-...")."""
    huge_pages: int | None = None
    """Size of the huge pages that back all of it, in bytes; None: base pages, or each node has its own."""


@dataclass(frozen=True)
class VirtioMemMemory:
    """A virtio-mem device; bytes. `size` is what is plugged now."""

    maximum: int
    requested: int
    size: int


def read_domain(text: str) -> DomainMemory | None:
    """Read the XML of a domain, or of libvirt's status of one; None if it is neither."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text.encode(), parser)
        domain = root if root.tag == "domain" else root.find("domain")
        if domain is None:
            return None
        pid = root.get("pid", "")
        return _domain(domain, int(pid) if pid.isdecimal() else None)
    except (etree.XMLSyntaxError, ValueError, OverflowError):
        return None


def _domain(domain: etree._Element, pid: int | None) -> DomainMemory | None:
    name, total = domain.findtext("name") or "", _bytes(domain.find("memory"))
    if not name or total is None:
        return None
    devices = list(_devices(domain))
    virtio_mem = tuple(device for device in devices if isinstance(device, VirtioMemMemory))
    dimms = tuple(device for device in devices if isinstance(device, int))
    # <memory> is what all of them could have (virDomainDefSetMemoryTotal(), src/conf/domain_conf.c).
    boot = total - sum(dimms) - sum(device.maximum for device in virtio_mem)
    balloon = domain.find("devices/memballoon")
    now = _bytes(domain.find("currentMemory"))
    if balloon is None or balloon.get("model") == "none" or now is None:
        left = None
    else:
        # qemuProcessHandleBalloonChange() (src/qemu/qemu_process.c) adds what virtio-mem has plugged.
        left = now - sum(device.size for device in virtio_mem)
    maximum = domain.find("maxMemory")
    slots = 0 if maximum is None else int(maximum.get("slots", "0"))
    room = 0 if maximum is None else max(0, (_bytes(maximum) or 0) - total)
    aliases = (one.get("name", "") for one in domain.iterfind("devices/memory[@model='dimm']/alias"))
    pages = domain.findall("memoryBacking/hugepages/page")
    huge = _bytes(pages[0], "size") if len(pages) == 1 and not pages[0].get("nodeset") else None
    return DomainMemory(
        name,
        (domain.findtext("uuid") or "").lower(),
        pid,
        domain.get("type") == "kvm",
        max(0, boot),
        dimms,
        left,
        virtio_mem,
        max(0, slots - len(dimms) - len(virtio_mem)),
        room,
        tuple(aliases),
        huge,
    )


def _devices(domain: etree._Element) -> Iterator[VirtioMemMemory | int]:
    for device in domain.iterfind("devices/memory"):
        size = _bytes(device.find("target/size"))
        if size is None:
            continue
        if device.get("model") == "virtio-mem":
            requested, current = (
                _bytes(device.find("target/requested")),
                _bytes(device.find("target/current")),
            )
            yield VirtioMemMemory(size, requested or 0, current or 0)
        elif device.get("model") == "dimm":
            yield size


def _bytes(element: etree._Element | None, attribute: str = "") -> int | None:
    if element is None:
        return None
    text = element.get(attribute, "") if attribute else (element.text or "")
    factor = _UNITS.get(element.get("unit", ""))
    return int(text.strip()) * factor if factor and text.strip().isdecimal() else None
