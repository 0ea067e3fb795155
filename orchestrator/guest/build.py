"""Builds a guest's disk and boot files from Debian packages, with mmdebstrap."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deadline import Deadline
from orchestrator.errors import InfrastructureError
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.keys import SshKeys
from orchestrator.processes import kill_group

GUEST_ADDRESS = "10.0.2.15"
GATEWAY_ADDRESS = "10.0.2.2"
BUILD_SECONDS = 1200.0
_CLEAN_UP_SECONDS = 30.0

# mmdebstrap's main process only notes a TERM and then waits for its children, which want one each, as
# from a terminal. So this shell hands the one that it gets, from us or because we were killed, to them
# all, once, and stays until they have cleaned up.
_SPREAD_TERM = """trap 'trap "" TERM; kill -TERM 0; wait' TERM; "$@" & wait $!"""

_SCRIPT = Path(__file__).with_name("customize.sh")
_SAFE_RELEASE = re.compile(r"[A-Za-z0-9.+~_-]{1,64}")
_NETWORK = f"""\
[Match]
Type=ether
[Network]
Address={GUEST_ADDRESS}/24
Gateway={GATEWAY_ADDRESS}
# passt learns the guest's MAC address from the first frame that it sends, and forwards nothing until
# then. That frame is duplicate detection of the IPv6 link-local address: leave it on.
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
"""


@dataclass(frozen=True)
class Built:
    """A finished build: `folder` holds disk.raw and boot/."""

    folder: Path
    releases: dict[str, str]  # kernel name of the definition -> kernel release
    packages: dict[str, str]  # Debian package -> version


def recipe(definition: GuestDefinition, keys: SshKeys) -> dict[str, str]:
    """All text of ours that goes into an image or decides how it is made: name -> content."""
    return {
        "customize.sh": _SCRIPT.read_text(),
        "modules": "".join(f"{module}\n" for module in definition.initrd_modules),
        "authorized_keys": f"{keys.client_public}\n",
        "ssh_host_ed25519_key.pub": f"{keys.host_public}\n",
        "network": _NETWORK,
    }


def debian_mirror() -> str:
    """The mirror that this machine takes Debian from, as apt sees it after `apt-get update`."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(LABEL)|$(CODENAME)"]
    argv += ["Identifier: Packages", "Origin: Debian"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        uri, label, codename = line.split("|")
        # The main archive, not security: only that one holds every suite under one address.
        if label == "Debian" and "-" not in codename:
            return uri
    raise InfrastructureError(
        "apt knows no Debian mirror on this machine",
        hint="add one to /etc/apt/sources.list.d, then: apt-get update",
    )


def build_image(definition: GuestDefinition, keys: SshKeys, scratch: Path, lock: int) -> Built:
    """Build below `scratch`, an empty folder. Raises InfrastructureError with the end of the log.

    Whoever holds the descriptor `lock` is still at work there: mmdebstrap inherits it.
    """
    made, settings = scratch / "image", scratch / "settings"
    (made / "boot").mkdir(parents=True)
    settings.mkdir()
    for name, text in recipe(definition, keys).items():
        (settings / name).write_text(text)
    key = settings / "ssh_host_ed25519_key"
    key.touch(mode=0o600)
    key.write_bytes(keys.host.read_bytes())
    _run(_argv(definition, made, settings), definition.name, scratch, lock)
    releases = _pairs(made / "kernels")
    packages = _pairs(made / "packages")
    for name in definition.kernels:
        if not _SAFE_RELEASE.fullmatch(releases.get(name, "")):
            raise InfrastructureError(
                f"the package of kernel {name!r} brought no kernel of its own into the image",
                details=f"found: {releases}",
                hint="do two kernels of the definition name the same version?",
            )
    (made / "disk.raw").chmod(0o444)
    (made / "definition.json").write_text(definition.model_dump_json(indent=2))
    return Built(made, releases, packages)


def _argv(definition: GuestDefinition, made: Path, settings: Path) -> list[str]:
    def script(*words: str) -> str:
        # mmdebstrap passes a hook to sh, with the tree as $1.
        what, *rest = map(shlex.quote, words)
        return " ".join(["--customize-hook=sh", shlex.quote(str(_SCRIPT)), what, '"$1"', *rest])

    def special(*words: str) -> str:
        return f"--customize-hook={shlex.join(words)}"

    mirror = debian_mirror()
    return [
        *("setpriv", "--pdeathsig", "TERM", "sh", "-c", _SPREAD_TERM, "sh"),
        "mmdebstrap",
        "--variant=minbase",
        "--format=null",
        "--aptopt=Acquire::Languages none",
        *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "doc", "locale", "info")),
        f"--include={','.join(['systemd-sysv', 'initramfs-tools', 'zstd', *definition.packages])}",
        script("prepare", str(settings)),
        *(
            script("kernel", name, kernel.suite, kernel.package)
            for name, kernel in definition.kernels.items()
        ),
        script("finish"),
        special("download", "/boot/kernels", f"{made}/kernels"),
        special("download", "/boot/packages", f"{made}/packages"),
        special("copy-out", "/boot", str(made)),
        script("disk", f"{made}/disk.raw", str(definition.disk)),
        definition.suite,
        "/dev/null",
        *(f"deb {mirror} {suite} main" for suite in (definition.suite, *definition.also_suites)),
    ]


def _run(argv: list[str], name: str, scratch: Path, lock: int) -> None:
    # The tree is built below TMPDIR, so that it goes with `scratch` however this ends; apt's own user
    # has to get there. mke2fs is in /usr/sbin, which a Debian user does not have on PATH.
    scratch.chmod(0o755)
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    environment = {**os.environ, "TMPDIR": str(scratch), "PATH": path}
    log = scratch / "build.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
            umask=0o022,  # the guest's daemons run as users of their own, and read files that we put there
        )
        try:
            code = process.wait(Deadline(BUILD_SECONDS).remaining)
            failure = f"mmdebstrap ended with code {code}" if code else ""
        except subprocess.TimeoutExpired:
            failure = f"mmdebstrap took longer than {BUILD_SECONDS:.0f} s"
        finally:
            _end(process)
    if failure:
        raise InfrastructureError(
            f"building the image {name} failed: {failure}",
            details="\n".join(log.read_text(errors="replace").splitlines()[-25:]),
            hint="check the network and the mirror (apt-get update), then run the same command again",
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it unmount and remove what it made.

    A second signal would keep it from that. This is the first: in a session of its own, mmdebstrap
    does not get the terminal's Ctrl-C.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_CLEAN_UP_SECONDS)
        except subprocess.TimeoutExpired:
            # With its children, which have the lock, too.
            kill_group(process)
            process.wait()


def _pairs(path: Path) -> dict[str, str]:
    words = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: pair[1] for pair in words if len(pair) == 2}
