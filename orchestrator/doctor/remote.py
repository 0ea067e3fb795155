"""Can a host elsewhere run guests? Asked of the host itself, by the reader that runs use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor import kernels
from orchestrator.doctor.check import CheckResult, Level, kernel_to_try
from orchestrator.doctor.hypervisor import NO_IMAGE, no_second_level
from orchestrator.errors import InfrastructureError
from orchestrator.host.accel import choose, second_level
from orchestrator.host.libvirt_host import LibvirtHost
from orchestrator.procfs import kib_lines
from orchestrator.units import GIB, format_size

QEMU_MINIMUM = (8, 2)
MEMORY_BAD_BYTES = 2 * GIB
_SECONDS = 30.0
_MEMINFO = "/proc/meminfo"
_THP = "/sys/kernel/mm/transparent_hugepage/enabled"
_ROOT = "guests of others can be read by root only: use qemu+ssh://root@HOST/system"


@dataclass(frozen=True)
class RemoteSubject:
    """A host elsewhere, and our cache, whose kernels can be tried there."""

    host: LibvirtHost
    cache: Path
    probe_again: bool = False


def libvirt(subject: RemoteSubject) -> CheckResult:
    """The library there, and the QEMU that it runs."""
    versions = subject.host.versions
    found = f"libvirt {versions['libvirt']} runs QEMU {versions['qemu']}"
    number = tuple(int(part) for part in versions["qemu"].split(".")[:2])
    if number < QEMU_MINIMUM:
        wanted = ".".join(map(str, QEMU_MINIMUM))
        return CheckResult(Level.BAD, f"{found}: too old", f"install QEMU {wanted} or later there")
    return CheckResult(Level.OK, found)


def programs(subject: RemoteSubject) -> CheckResult:
    """What guests are set up with there."""
    needed = ("qemu-system-x86_64", "qemu-img", "passt", "zstd", "setpriv")
    found = subject.host.shell.run(
        ["sh", "-c", 'for one; do command -v "$one" >/dev/null || echo "$one"; done', "sh", *needed],
        seconds=_SECONDS,
    ).split()
    if found:
        packages = "apt-get install qemu-system-x86 qemu-utils passt zstd util-linux"
        return CheckResult(Level.BAD, f"missing: {', '.join(found)}", f"there: {packages}")
    return CheckResult(Level.OK, ", ".join(needed))


def rights(subject: RemoteSubject) -> CheckResult:
    """Whether QEMU's page map can be read there."""
    uid = subject.host.shell.run(["id", "-u"], seconds=_SECONDS).strip()
    return CheckResult(Level.OK, "root") if uid == "0" else CheckResult(Level.BAD, f"user {uid}", _ROOT)


def acceleration(subject: RemoteSubject) -> CheckResult:
    """KVM, believed once a real kernel has printed under it there."""
    kernel = kernel_to_try(subject.cache)
    if kernel is None:
        fix = "orchestrator image build"
        return CheckResult(Level.UNKNOWN, NO_IMAGE, fix, word="unknown")
    chosen = choose("auto", kernel, subject.cache, subject.host.shell, again=subject.probe_again)
    return CheckResult(Level.OK if chosen.name == "kvm" else Level.NOTE, chosen.explanation, word=chosen.name)


def translation(subject: RemoteSubject) -> CheckResult:
    """EPT or NPT, as the host's KVM has it."""
    level = second_level(subject.host.shell)
    if level == "none":
        return no_second_level(subject.host.shell)
    return CheckResult(Level.OK, level, word=level)


def counters(subject: RemoteSubject) -> CheckResult:
    """What the kernel there counts of second-level tables."""
    shell = subject.host.shell
    missing = []
    if "SecPageTables" not in shell.text(_MEMINFO):
        missing.append("SecPageTables (Linux 6.1)")
    if not shell.texts("/sys/kernel/debug/kvm/pages_4k"):
        missing.append("KVM's debugfs (mount -t debugfs debugfs /sys/kernel/debug)")
    kernel = shell.text("/proc/sys/kernel/osrelease").strip()
    if missing:
        return CheckResult(Level.NOTE, f"Linux {kernel} lacks {' and '.join(missing)}")
    return CheckResult(Level.OK, f"Linux {kernel} counts second-level tables")


def kernel(subject: RemoteSubject) -> CheckResult:
    """What is known to be wrong with the kernel there, by its release alone."""
    return kernels.judged(subject.host.shell.text("/proc/sys/kernel/osrelease").strip(), None)


def memory(subject: RemoteSubject) -> CheckResult:
    """MemAvailable there."""
    available = kib_lines(subject.host.shell.text(_MEMINFO)).get("MemAvailable", 0)
    level = Level.BAD if available < MEMORY_BAD_BYTES else Level.OK
    wanted = f"free some: a guest needs {format_size(MEMORY_BAD_BYTES)}"
    return CheckResult(level, f"{format_size(available)} available", wanted if level is Level.BAD else "")


def huge_pages(subject: RemoteSubject) -> CheckResult:
    """Transparent huge pages there."""
    found = subject.host.shell.texts(_THP).get(_THP, "").strip()
    return CheckResult(Level.OK, found or "the kernel has none")


CHECKS: tuple[tuple[str, Callable[[RemoteSubject], CheckResult]], ...] = (
    ("libvirt", libvirt),
    ("programs", programs),
    ("rights", rights),
    ("acceleration", acceleration),
    ("second level", translation),
    ("counters", counters),
    ("host kernel", kernel),
    ("memory", memory),
    ("host THP", huge_pages),
)


def looked_at(look: Callable[[RemoteSubject], CheckResult], subject: RemoteSubject) -> CheckResult:
    """A finding; what kept it from being made is one, too."""
    try:
        return look(subject)
    except (InfrastructureError, OSError) as error:
        return CheckResult(Level.BAD, f"could not be checked: {error}", "ssh there and look")
