"""The libvirt domain of a guest, built with lxml (https://libvirt.org/formatdomain.html)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lxml import etree
from lxml.builder import E as _E

from orchestrator.host.machine import Machine
from orchestrator.records.accel import ICOUNT, KVM
from orchestrator.units import KIB


class _Maker(Protocol):
    """lxml's builder, which comes without types: any tag's name makes an element."""

    def __getattr__(self, tag: str) -> Callable[..., etree._Element]: ...


E: _Maker = _E

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_SLOTS = 16  # for memory devices, unless there are more DIMMs; an unused one costs nothing


@dataclass(frozen=True)
class RunFiles:
    """What is a domain's own in one run: the guest sees none of it."""

    disk: Path  # qcow2 overlay
    console_log: Path
    ssh_port: int  # on 127.0.0.1


@dataclass(frozen=True)
class DomainFiles(RunFiles):
    """What a domain is booted from and writes to."""

    kernel: Path
    initrd: Path | None
    command_line: str


def domain_xml(name: str, machine: Machine, files: DomainFiles, *, accel: str, guest_address: str) -> str:
    """The domain as XML text. `accel` is a name of `records.accel`."""
    domain = E.domain(
        E.name(name),
        *_memory(machine),
        E.vcpu(str(machine.vcpus)),
        _boot(files),
        E.features(E.acpi(), E.apic()),
        _cpu(machine, accel),
        E.on_poweroff("destroy"),
        E.on_reboot("destroy"),
        E.on_crash("destroy"),
        E.devices(
            _disk(files.disk),
            _network(files, guest_address),
            _console(files.console_log),
            *_virtio_mem(machine),
            _balloon(machine),
            # An entropy source: sshd would wait for one on a machine without RDRAND.
            E.rng(E.backend("/dev/urandom", model="random"), model="virtio"),
            E.controller(type="usb", model="none"),
        ),
        type="kvm" if accel == KVM else "qemu",
    )
    if accel == ICOUNT:
        domain.append(_counted())
    return etree.tostring(domain, pretty_print=True, encoding="unicode")


def _counted() -> etree._Element:
    """One nanosecond of the guest's clock for each instruction, for which libvirt has no element of its own.

    QEMU runs all vCPUs in one thread then (default_mttcg_enabled(), accel/tcg/tcg-all.c). `sleep=on`: an idle
    guest waits in the host's time. With `off` its clock jumps to the next timer at once, so that sshd's time
    to log in, and thousands of samples, are over before a packet has arrived (icount_start_warp_timer(),
    accel/tcg/icount-common.c). What never idles is counted alike under both.
    """
    commandline = etree.Element(f"{{{_QEMU}}}commandline", nsmap={"qemu": _QEMU})
    for word in ("-icount", "shift=0,sleep=on"):
        etree.SubElement(commandline, f"{{{_QEMU}}}arg", value=word)
    return commandline


def relocated_xml(saved_xml: str, files: RunFiles) -> str:
    """A saved domain with the files and the port of another run."""
    domain = etree.fromstring(saved_xml)
    for path, attribute, value in (
        ("devices/disk/source", "file", str(files.disk)),
        ("devices/serial/source", "path", str(files.console_log)),
        ("devices/console/source", "path", str(files.console_log)),  # libvirt's own copy of the serial port
        ("devices/interface/portForward/range", "start", str(files.ssh_port)),
    ):
        for element in domain.iterfind(path):
            element.attrib[attribute] = value
    return etree.tostring(domain, encoding="unicode")


def run_files(xml: str) -> RunFiles:
    """What a domain of ours has of its own. Raises ValueError for what is none."""
    try:
        domain = etree.fromstring(xml)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"no XML: {error}") from None
    console = domain.find("devices/serial/source")
    port = domain.find("devices/interface/portForward/range")
    if console is None or port is None:
        raise ValueError("the domain belongs to another program")
    return RunFiles(Path(disk_path(xml)), Path(str(console.get("path"))), int(str(port.get("start"))))


def domain_name(xml: str) -> str:
    """The name of a domain."""
    return etree.fromstring(xml).findtext("name") or ""


def disk_path(xml: str) -> str:
    """The file of a domain's disk."""
    source = etree.fromstring(xml).find("devices/disk/source")
    return "" if source is None else str(source.get("file", ""))


def virtio_mem_request(live_xml: str, requested_bytes: int) -> str:
    """The virtio-mem device of a running domain with another requested size, for `updateDeviceFlags`.

    libvirt finds the device by all that it knows of it, so it gets back what it said itself
    (qemuDomainChangeMemoryRequestedSize).
    """
    device = etree.fromstring(live_xml).find("devices/memory[@model='virtio-mem']")
    if device is None:
        raise ValueError("the domain has no virtio-mem device")
    requested = device.find("target/requested")
    assert requested is not None  # noqa: S101  # mandatory in a virtio-mem device
    requested.text, requested.attrib["unit"] = str(requested_bytes // KIB), "KiB"
    return etree.tostring(device, encoding="unicode")


def dimm_device(size_bytes: int, alias: str = "") -> str:
    """A pc-dimm on the guest's first node, for `attachDeviceFlags`. libvirt takes an alias that begins with
    "ua-" (https://libvirt.org/formatdomain.html#devices), and makes one otherwise."""
    device = E.memory(E.target(E.size(str(size_bytes // KIB), unit="KiB"), E.node("0")), model="dimm")
    if alias:
        device.append(E.alias(name=alias))
    return etree.tostring(device, encoding="unicode")


def _memory(machine: Machine) -> list[etree._Element]:
    elements = [E.memory(str(machine.boot_maximum // KIB), unit="KiB")]
    if machine.virtio_mem or machine.dimms:
        # maxMemory must exceed the total by the alignment of each slot (qemuDomainDefValidateMemory).
        room = machine.maximum_memory + (machine.virtio_mem.size if machine.virtio_mem else 0)
        slots = max(_SLOTS, len(machine.dimms))
        elements.insert(0, E.maxMemory(str(room // KIB), slots=str(slots), unit="KiB"))
    return elements


def _boot(files: DomainFiles) -> etree._Element:
    boot = E.os(E.type("hvm", arch="x86_64", machine="q35"), E.kernel(str(files.kernel)))
    if files.initrd:
        boot.append(E.initrd(str(files.initrd)))
    boot.append(E.cmdline(files.command_line))
    return boot


def _cpu(machine: Machine, accel: str) -> etree._Element:
    # `maximum` is `-cpu max`: all that TCG emulates, SVM with nested paging among it.
    mode = "host-passthrough" if accel == KVM else "maximum"
    # Memory devices need a guest NUMA node to live on.
    cells = E.numa(
        E.cell(id="0", cpus=f"0-{machine.vcpus - 1}", memory=str(machine.memory // KIB), unit="KiB")
    )
    return E.cpu(cells, mode=mode)


def _disk(path: Path) -> etree._Element:
    # At an I/O error of the host's disk QEMU stops the guest, which would else take it for its own disk's and
    # go on, its root file system read-only. By default that is so for a full disk only (virtio-blk's werror).
    return E.disk(
        E.driver(
            name="qemu",
            type="qcow2",
            cache="unsafe",
            error_policy="stop",
            rerror_policy="stop",
            discard="unmap",
        ),
        E.source(file=str(path)),
        E.target(dev="vda", bus="virtio"),
        type="file",
        device="disk",
    )


def _network(files: DomainFiles, guest_address: str) -> etree._Element:
    return E.interface(
        E.backend(type="passt"),
        E.ip(family="ipv4", address=guest_address, prefix="24"),
        E.portForward(E.range(start=str(files.ssh_port), to="22"), proto="tcp", address="127.0.0.1"),
        E.model(type="virtio"),
        type="user",
    )


def _console(log: Path) -> etree._Element:
    return E.serial(E.source(path=str(log), append="on"), E.target(port="0"), type="file")


def _virtio_mem(machine: Machine) -> list[etree._Element]:
    device = machine.virtio_mem
    if device is None:
        return []
    return [
        E.memory(
            E.target(
                E.size(str(device.size // KIB), unit="KiB"),
                E.node("0"),
                E.block(str(device.block // KIB), unit="KiB"),
                E.requested(str(device.plugged // KIB), unit="KiB"),
                **({"dynamicMemslots": "yes"} if device.dynamic_memslots else {}),
            ),
            model="virtio-mem",
        )
    ]


def _balloon(machine: Machine) -> etree._Element:
    return E.memballoon(
        E.stats(period="1"),
        model="virtio",
        autodeflate="on" if machine.balloon.deflate_on_oom else "off",
        freePageReporting="on" if machine.balloon.free_page_reporting else "off",
    )
