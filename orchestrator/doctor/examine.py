"""The table of checks, and the walk over it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from orchestrator.doctor import debian, hypervisor, kernels, machine, remote, sandbox, tools
from orchestrator.doctor.check import Check, CheckResult, Level, Subject
from orchestrator.errors import InfrastructureError
from orchestrator.host.runtime import runtime_folder
from orchestrator.host_kinds import host_kind

ACCELERATION = "acceleration"
SECOND_LEVEL = "second level"

CHECKS: tuple[tuple[str, Callable[[Subject], CheckResult]], ...] = (
    ("QEMU", tools.qemu),
    ("libvirt module", hypervisor.binding),
    ("libvirt", hypervisor.driver),
    ("passt", sandbox.passt),
    ("Debian packages", debian.packages),
    ("mmdebstrap", tools.tool("mmdebstrap", ("--version",))),
    ("mke2fs", tools.tool("mke2fs", ("-V",))),
    ("ssh-keygen", tools.tool("ssh-keygen")),
    ("compiler", tools.compiler),
    ("ansible", tools.ansible),
    ("terminals", sandbox.terminals),
    ("namespaces", sandbox.namespaces),
    ("guest images", hypervisor.images),
    ("Debian mirror", hypervisor.mirror),
    (ACCELERATION, hypervisor.acceleration),
    (SECOND_LEVEL, hypervisor.second_level),
    ("nested", hypervisor.nested),
    ("host kernel", kernels.host),
    ("guest kernels", kernels.guests),
    ("CPU", machine.cpu),
    ("memory", machine.memory),
    ("cache disk", machine.disk("ORCHESTRATOR_CACHE=FOLDER", lambda subject: subject.cache)),
    ("results disk", machine.disk("--results FOLDER", lambda subject: subject.results)),
    ("rights", machine.rights),
    ("guest memory", machine.guest_memory),
    ("host THP", machine.huge_pages),
    ("leftovers", machine.killed_runs),
)


def examine(
    cache: Path, guests_dir: Path, results: Path, connect: str | None, *, probe_again: bool = False
) -> list[Check]:
    """Every check of the table, in its order. Never raises for what a check met; leaves nothing behind but
    its check of KVM, which is kept for runs.

    Takes a few seconds; up to 20 s more where KVM opens but hangs and no check is kept, or `probe_again`.
    """
    subject = Subject(cache, guests_dir, results, connect, probe_again)
    return [_look(name, look, subject) for name, look in CHECKS]


def examine_host(cache: Path, host: str, *, probe_again: bool = False) -> list[Check]:
    """Every check of a host elsewhere, named as for --connect. Raises BadInputError."""
    with runtime_folder(Path("doctor")) as runtime, ExitStack() as stack:
        try:
            there = stack.enter_context(host_kind(host).connect(runtime, cache))
        except InfrastructureError as error:
            said = ": ".join([error.brief, *error.details.strip().splitlines()[:1]])
            # What sends people here is of no use here.
            fix = "" if error.hint.startswith("orchestrator doctor") else error.hint
            return [Check("ssh and libvirt", Level.BAD, said[:400], fix or f"ssh {host}   and look there")]
        reached = Check("ssh and libvirt", Level.OK, f"{there.shell.name} answers")
        subject = remote.RemoteSubject(there, cache, probe_again)
        findings = [(name, remote.looked_at(look, subject)) for name, look in remote.CHECKS]
        return [reached, *(Check(name, one.level, one.found, one.fix, one.word) for name, one in findings)]


def _look(name: str, look: Callable[[Subject], CheckResult], subject: Subject) -> Check:
    try:
        finding = look(subject)
    # A machine can be broken in ways that were not thought of; the other checks may say how.
    except Exception as error:  # noqa: BLE001
        said = f"could not be checked: {type(error).__name__}: {error}"
        finding = CheckResult(Level.BAD, said[:400], "please report it, with this line")
    return Check(name, finding.level, finding.found, finding.fix, finding.word)
