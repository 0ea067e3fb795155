"""What the command line of a program that runs a VM says of the VM. Pure.

A command line is its user's: nothing in it is believed that another source has, and what cannot be read is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.jsontext import parse_json
from orchestrator.units import GIB, KIB, MIB, TIB

QEMU, CLOUD_HYPERVISOR, FIRECRACKER = "qemu", "cloud-hypervisor", "firecracker"

# mc->default_ram_size of QEMU's PC machines (hw/core/machine.c); size=512M of `--memory` (Cloud Hypervisor's
# DEFAULT_MEMORY_MB, vmm/src/vm_config.rs).
_QEMU_MEMORY, _CLOUD_HYPERVISOR_MEMORY = 128 * MIB, 512 * MIB
_SUFFIXES = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB, "p": 1 << 50, "e": 1 << 60}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)([bkmgtpe]?)(?:i?b)?", re.IGNORECASE)

# Where libvirt keeps a domain's key (qemuDomainGetMasterKeyFilePath(), src/qemu/qemu_domain.c).
_MASTER_KEY = re.compile(r"(/.*)/domain-[0-9]+-[^/]*/master-key\.aes")


@dataclass(frozen=True)
class VmCommand:
    """A VM by the command line of its program; sizes in bytes, None or empty where it does not say."""

    vmm: str
    """qemu, cloud-hypervisor, firecracker, or the file name of another program."""
    name: str = ""
    uuid: str = ""
    memory: int | None = None
    """What the guest boots with, and DIMMs that are there from the beginning."""
    initial: tuple[int, ...] = ()
    """Sizes of the RAM blocks that QEMU has its boot memory in."""
    devices: tuple[int, ...] = ()
    """Sizes of those of memory devices: DIMMs, then virtio-mem."""
    virtio_mem: bool = False
    accelerators: tuple[str, ...] = ()
    """In the order of preference."""
    empty: bool = False
    """A QEMU that has no machine: libvirt starts one to ask what it can do."""
    state_folder: str = ""
    """Of libvirt, where it is known (`status_files`)."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of all RAM that it started with."""
        return (*self.initial, *self.devices)

    @property
    def status_files(self) -> tuple[str, ...]:
        """Where its libvirt keeps the live domain's XML (virDomainObjSave(), src/conf/domain_conf.c)."""
        if not self.state_folder or not self.name or "/" in self.name:
            return ()
        return (f"{self.state_folder}/{self.name}.xml",)


def read_command(argv: Sequence[str], user: int = 0) -> VmCommand:
    """What `argv` says; `user` is whose process it is."""
    program = PurePosixPath(argv[0]).name if argv else ""
    if program.startswith("qemu-system-") or program in {"qemu-kvm", "kvm"}:
        return _qemu(argv, user)
    if program == CLOUD_HYPERVISOR:
        return _cloud_hypervisor(argv)
    if program == FIRECRACKER:
        return VmCommand(FIRECRACKER, name=_value(argv, "--id"))
    return VmCommand(program)


def _qemu(argv: Sequence[str], user: int) -> VmCommand:
    options = list(_options(argv))
    given: dict[str, list[dict[str, str]]] = {}
    for option, value in options:
        given.setdefault(option, []).append(_fields(value, _FIRST_KEY.get(option, "")))
    machine = {
        key: value for one in given.get("machine", []) + given.get("M", []) for key, value in one.items()
    }
    name = {key: value for one in given.get("name", []) for key, value in one.items()}
    memory = {key: value for one in given.get("m", []) for key, value in one.items()}
    backends = {
        one.get("id", ""): size
        for one in given.get("object", [])
        if one.get("qom-type", "").startswith("memory-backend-")
        and (size := _size(one.get("size", ""))) is not None
    }
    devices = given.get("device", [])
    used = [(one.get("driver", ""), backends.get(one.get("memdev", ""))) for one in devices]
    virtio_mem = [size for driver, size in used if driver.startswith("virtio-mem")]
    dimms = [size for driver, size in used if driver == "pc-dimm" and size]
    boot = _size(memory.get("size", ""), MIB) or _QEMU_MEMORY
    nodes = [size for one in given.get("numa", []) if (size := backends.get(one.get("memdev", "")))]
    initial = nodes or [backends.get(machine.get("memory-backend", ""), boot)]
    accelerators = [one.get("accel", "") for one in given.get("accel", [])]
    accelerators = accelerators or machine.get("accel", "").split(":")
    if "enable-kvm" in given:
        accelerators = ["kvm"]
    return VmCommand(
        QEMU,
        name.get("guest", ""),
        next((one.get("uuid", "") for one in given.get("uuid", [])), ""),
        boot + sum(dimms),
        tuple(initial),
        (*dimms, *(size for size in virtio_mem if size)),
        bool(virtio_mem),
        tuple(one for one in accelerators if one),
        machine.get("type") == "none",
        _state_folder(given.get("object", []), user),
    )


def _state_folder(objects: Sequence[Mapping[str, str]], user: int) -> str:
    """Where the libvirt that started a QEMU keeps the state of its domains."""
    keys = (_MASTER_KEY.fullmatch(one.get("file", "")) for one in objects if one.get("qom-type") == "secret")
    library = next((key[1] for key in keys if key), "")
    # virQEMUDriverConfigNew() in src/qemu/qemu_conf.c has these three.
    if library == "/var/lib/libvirt/qemu":
        return "/run/libvirt/qemu"
    if library.endswith("/libvirt/qemu/lib"):
        return f"/run/user/{user}/libvirt/qemu/run"
    if library.endswith("/lib/qemu"):  # the embedded driver, below a root of its own
        return library.removesuffix("lib/qemu") + "run/qemu"
    return ""


def _cloud_hypervisor(argv: Sequence[str]) -> VmCommand:
    words = [_fields(word, "") for word in _values(argv, "--memory")]
    if not words and "--kernel" not in argv and "--firmware" not in argv:
        return VmCommand(CLOUD_HYPERVISOR)  # it is configured by its API
    memory = {key: value for one in words for key, value in one.items()}
    return VmCommand(
        CLOUD_HYPERVISOR,
        memory=_size(memory.get("size", "")) if "size" in memory else _CLOUD_HYPERVISOR_MEMORY,
        virtio_mem=memory.get("hotplug_method") == "virtio-mem",
    )


# The key that the first word of an option's value may leave out (QemuOptsList.implied_opt_name).
_FIRST_KEY = {
    "machine": "type", "M": "type", "accel": "accel", "m": "size", "name": "guest", "object": "qom-type",
    "device": "driver", "numa": "type", "uuid": "uuid",
}  # fmt: skip
_WITHOUT_VALUE = {"enable-kvm", "S", "nographic", "nodefaults", "no-user-config", "daemonize", "no-shutdown"}


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """QEMU's options and their values; it takes them with one dash or two."""
    words = iter(argv[1:])
    for word in words:
        if word.startswith("-"):
            option = word.removeprefix("-").removeprefix("-")
            yield option, "" if option in _WITHOUT_VALUE else next(words, "")


def _fields(text: str, first: str) -> dict[str, str]:
    """`a,b=c` or a JSON object, as QEMU takes them; in a value a comma is written twice."""
    if text.startswith("{"):
        with suppress(ValueError):
            found = parse_json(text)
            return {str(key): str(value) for key, value in found.items() if isinstance(value, str | int)}
        return {}
    found = {}
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = part.replace("\0", ",").partition("=")
        if equals:
            found[key] = value
        elif number == 0 and first:
            found[first] = key
    return found


def _size(text: str, unit: int = 1) -> int | None:
    """Bytes of a size with QEMU's suffixes; `unit` of a number without one."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    factor = _SUFFIXES[match[2].lower()] if match[2] else unit
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def _value(argv: Sequence[str], option: str) -> str:
    return next(_values(argv, option), "")


def _values(argv: Sequence[str], option: str) -> Iterator[str]:
    for number, word in enumerate(argv):
        if word == option:
            yield from argv[number + 1 : number + 2]
        elif word.startswith(f"{option}="):
            yield word.partition("=")[2]
