"""Rights that a run needs of the kernel, each tried as a run uses it; nothing that is tried lasts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from orchestrator.doctor.check import BOOTSTRAP, CheckResult, Level, Subject
from orchestrator.doctor.tools import ANSWER_SECONDS, find_program
from orchestrator.host.runtime import runtime_folder

_NAMESPACES = "allow user namespaces (user_namespaces(7), sysctl user.max_user_namespaces), or run as root"


def passt(_subject: Subject) -> CheckResult:
    """passt as libvirt starts it: it isolates itself in namespaces of its own before it serves anybody.

    It becomes a daemon once it has done so, and ends when its only client goes.
    """
    path = find_program("passt")
    if path is None:
        return CheckResult(Level.BAD, "passt is not installed", BOOTSTRAP)
    with runtime_folder(Path("doctor")) as runtime:
        folder = runtime / "passt"
        folder.mkdir()
        folder.chmod(0o1777)  # started as root, passt becomes `nobody` and then writes here
        address = folder / "socket"
        argv = [path, "--one-off", "--socket", str(address), "--pid", str(folder / "pid")]
        said = _trouble(argv)
        if not said:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(address))
            return CheckResult(Level.OK, f"{path} starts")
    fix = _NAMESPACES if "namespace" in said else f"see what it says: {path} --foreground"
    return CheckResult(Level.BAD, f"does not start: {said[:300]}", fix)


def terminals(_subject: Subject) -> CheckResult:
    """Whether there are pseudo-terminals: guests are set up by ansible-runner, which gives Ansible one."""
    try:
        for descriptor in os.openpty():
            os.close(descriptor)
    except OSError as error:
        return CheckResult(
            Level.BAD,
            f"no pseudo-terminal: {error.strerror}",
            "mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts",
        )
    return CheckResult(Level.OK, "a pseudo-terminal opens")


def namespaces(_subject: Subject) -> CheckResult:
    """Whether the namespaces may be made in which mmdebstrap builds an image, as root or in one of a user."""
    program = shutil.which("unshare")
    if program is None:
        return CheckResult(Level.UNKNOWN, "not checked: unshare(1) is not installed", BOOTSTRAP)
    words = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    said = _trouble([program, *words, "true"])
    if not said:
        return CheckResult(Level.OK, f"unshare {' '.join(words)} works")
    return CheckResult(
        Level.NOTE,
        f"refused, so no image can be built here; those in the cache can be used: {said[:300]}",
        "give this container the right to mount (CAP_SYS_ADMIN)" if os.geteuid() == 0 else _NAMESPACES,
    )


def _trouble(argv: list[str]) -> str:
    """The last line that a program says when it fails; empty where it does not."""
    with tempfile.TemporaryFile() as said:  # no pipe: what becomes a daemon may keep it open
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return ""
        said.seek(0)
        lines = said.read(1 << 16).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ends with code {done.returncode}"
