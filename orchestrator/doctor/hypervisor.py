"""libvirt, acceleration, second-level translation, and the images to run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from orchestrator.doctor.check import BOOTSTRAP, QEMU, CheckResult, Level, Subject
from orchestrator.errors import OrchestratorError
from orchestrator.guest.build import debian_mirror
from orchestrator.guest.definition import load_definition
from orchestrator.guest.image import find_image, image_key
from orchestrator.guest.keys import ensure_keys
from orchestrator.host import accel
from orchestrator.host.kvm import shadow_paging
from orchestrator.host.shell import HostShell
from orchestrator.shipped import own_and_shipped
from orchestrator.units import format_duration

NO_IMAGE = "not checked: that takes the kernel of a guest image, and none is built yet"
_BUILD = "orchestrator image build"


def binding(_subject: Subject) -> CheckResult:
    """libvirt's Python module."""
    if find_spec("libvirt") is None:
        return CheckResult(Level.BAD, "Python's libvirt module is not installed", BOOTSTRAP)
    try:
        version = metadata.version("libvirt-python")
    except metadata.PackageNotFoundError:
        return CheckResult(Level.OK, "there, of unknown version")
    return CheckResult(Level.OK, version)


def driver(subject: Subject) -> CheckResult:
    """libvirt as a run would open it: embedded in this process, or where --connect says."""
    try:
        connection = subject.connection
    # libvirt's own errors are no class that can be named where its module may be missing.
    except Exception as error:  # noqa: BLE001
        fix = f"virsh -c {shlex.quote(subject.connect)} version" if subject.connect else BOOTSTRAP
        return CheckResult(Level.BAD, f"cannot be opened: {_why(error)}", fix)
    return CheckResult(
        Level.OK,
        f"libvirt {connection.libvirt} at {connection.uri} runs QEMU {connection.qemu}"
        f" (opened in {format_duration(connection.seconds)})",
    )


def acceleration(subject: Subject) -> CheckResult:
    """KVM or software emulation: what a real kernel showed."""
    chosen = subject.acceleration
    if chosen is None:
        missing_qemu = shutil.which(QEMU) is None
        return CheckResult(
            Level.UNKNOWN,
            "not checked: QEMU is missing" if missing_qemu else NO_IMAGE,
            BOOTSTRAP if missing_qemu else _BUILD,
            word="unknown",
        )
    if chosen.name == "kvm":
        return CheckResult(Level.OK, chosen.explanation, word=chosen.name)
    return CheckResult(
        Level.NOTE,
        f"works, but slowly: {chosen.explanation}",
        "for KVM: a machine with VT-x or AMD-V (a virtual one: with nested virtualization on)",
        word=chosen.name,
    )


def second_level(subject: Subject) -> CheckResult:
    """The second level of translation that guests get: the one whose tables runs measure."""
    there, chosen = accel.second_level(HostShell()), subject.acceleration
    if there == "none":
        return no_second_level(HostShell())
    if chosen is None:
        found = f"not checked: {there} is on, but whether KVM works is not known"
        return CheckResult(Level.UNKNOWN, found, _BUILD, word="unknown")
    if chosen.name != "kvm":
        unused = f"{there} is on, but software emulation makes no use of it"
        return CheckResult(Level.NOTE, f"none: second_level_bytes will be a gap; {unused}", word="none")
    return CheckResult(Level.OK, there, word=there)


def no_second_level(shell: HostShell) -> CheckResult:
    """That there is none on a host, and what its KVM is then."""
    what = shadow_paging(shell)
    because = f"; {what}" if what else ""
    return CheckResult(Level.NOTE, f"none: second_level_bytes will be a gap{because}", word="none")


def nested(_subject: Subject) -> CheckResult:
    """Whether guests of this machine could run guests with KVM themselves."""
    for module in ("kvm_intel", "kvm_amd"):
        parameter = Path(f"/sys/module/{module}/parameters/nested")
        if parameter.is_file():
            on = parameter.read_text().strip() in {"Y", "1"}
            return CheckResult(Level.OK, f"{'on' if on else 'off'} ({module})")
    return CheckResult(Level.OK, "off under KVM: neither kvm_intel nor kvm_amd is loaded")


def images(subject: Subject) -> CheckResult:
    """Whether each guest definition has its image; a run builds what is missing."""
    folders = own_and_shipped(subject.guests_dir, "guests")
    names = {path.name for folder in folders for path in folder.glob("*.yaml")}
    definitions = [load_definition(subject.guests_dir / name) for name in sorted(names)]
    if not definitions:
        return CheckResult(
            Level.BAD, f"{subject.guests_dir} defines no guest", "name their folder: --guests-dir FOLDER"
        )
    built = []
    if (subject.cache / "ssh" / "client").exists():  # else there is no image either, and none is made here
        keys = ensure_keys(subject.cache)
        named = {definition.name: image_key(definition, keys) for definition in definitions}
        built = [
            name for name, key in named.items() if find_image(subject.cache / "images" / f"{name}-{key}", key)
        ]
    missing = [definition.name for definition in definitions if definition.name not in built]
    if missing:
        fix = f"{_BUILD} {missing[0]}   (or let the first run do it)"
        return CheckResult(Level.NOTE, f"not built yet: {', '.join(missing)}", fix)
    return CheckResult(Level.OK, f"built: {', '.join(built)}")


def mirror(_subject: Subject) -> CheckResult:
    """Where images are built from. Images that are built already need none."""
    try:
        return CheckResult(Level.OK, debian_mirror())
    except (OrchestratorError, OSError, subprocess.SubprocessError) as error:
        return CheckResult(
            Level.NOTE,
            f"none, so only guests with a cached image can run: {_why(error)}",
            "add a source to /etc/apt/sources.list.d, then: apt-get update",
        )


def _why(error: Exception) -> str:
    said = [str(error) or type(error).__name__]
    if isinstance(error, OrchestratorError) and error.details:
        said.append(error.details.strip().splitlines()[0])
    return ": ".join(said)[:400]
