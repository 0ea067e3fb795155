"""Guest images: built from Debian packages with mmdebstrap, cached by what they are made of."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import InfrastructureError
from orchestrator.guest.cache import locked
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.keys import SshKeys

# Raise it when what the hooks below do to an image changes.
RECIPE = 1

GUEST_ADDRESS = "10.0.2.15"
GATEWAY_ADDRESS = "10.0.2.2"
BUILD_TIMEOUT_SECONDS = 1200.0

_SCRIPT = Path(__file__).with_name("customize.sh")
_SAFE_RELEASE = re.compile(r"[A-Za-z0-9.+~_-]{1,64}")


@dataclass(frozen=True)
class BootFiles:
    """What QEMU boots directly: a kernel of the image, or the user's own."""

    kernel: Path
    initrd: Path | None
    release: str  # as in the name of the file; the guest's `uname -r` is read when it runs


@dataclass(frozen=True)
class Image:
    """A built image: a read-only raw disk and its kernels."""

    folder: Path
    key: str
    releases: dict[str, str]  # kernel name of the definition -> kernel release
    packages: dict[str, str]  # Debian package -> version

    @property
    def disk(self) -> Path:
        """The root file system, ext4 without a partition table."""
        return self.folder / "disk.raw"

    def boot_files(self, kernel: str) -> BootFiles:
        """Kernel and initrd of a name in the definition, or of a path to the user's own bzImage.

        The user's kernel is booted without an initrd: virtio and ext4 must be built into it.
        """
        if "/" in kernel:
            path = Path(kernel).expanduser().resolve()
            if not path.is_file():
                raise InfrastructureError(
                    f"there is no kernel at {path}", hint="check `kernel:` in the scenario"
                )
            return BootFiles(kernel=path, initrd=None, release=path.name)
        release = self.releases.get(kernel)
        if release is None:
            raise InfrastructureError(
                f"the image has no kernel {kernel!r}", hint=f"there are: {', '.join(sorted(self.releases))}"
            )
        boot = self.folder / "boot"
        return BootFiles(
            kernel=boot / f"vmlinuz-{release}", initrd=boot / f"initrd.img-{release}", release=release
        )


def image_key(definition: GuestDefinition, keys: SshKeys) -> str:
    """Hash of all that an image is made of, apart from the day's package versions (see `image.json`)."""
    parts = {
        "recipe": RECIPE,
        "definition": definition.baked_in,
        "script": _SCRIPT.read_text(),
        "client": keys.client_public,
        "host": keys.host_public,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def find_image(folder: Path, key: str) -> Image | None:
    """The cached image, or None when it was never completed."""
    try:
        facts = json.loads((folder / "image.json").read_text())
    except FileNotFoundError:
        return None
    return Image(folder=folder, key=key, releases=facts["releases"], packages=facts["packages"])


def ensure_image(
    definition: GuestDefinition,
    keys: SshKeys,
    cache: Path,
    *,
    progress: Callable[[str], None],
    refresh: bool = False,
) -> Image:
    """The image of a definition: from the cache, else built now (about a minute, needs the mirror)."""
    key = image_key(definition, keys)
    images = cache / "images"
    folder = images / f"{definition.name}-{key}"
    with locked(images):
        image = None if refresh else find_image(folder, key)
        if image is None:
            progress(f"building the guest image {definition.name} (kept in {folder})")
            with tempfile.TemporaryDirectory(prefix=".building-", dir=images) as scratch:
                made = Path(scratch) / "image"
                made.mkdir()
                _build(definition, keys, made, key, progress)
                if folder.exists():
                    shutil.rmtree(folder)
                made.rename(folder)
            image = find_image(folder, key)
            assert image is not None  # noqa: S101  # written two lines above
        return image


def debian_mirror() -> str:
    """The mirror that this machine takes Debian from, as apt sees it after `apt-get update`."""
    listed = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)|$(LABEL)|$(CODENAME)",
            "Identifier: Packages",
            "Origin: Debian",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in listed.splitlines():
        uri, label, codename = line.split("|")
        # The main archive, not security: only that one holds every suite under one address.
        if label == "Debian" and "-" not in codename:
            return uri
    raise InfrastructureError(
        "apt knows no Debian mirror on this machine",
        hint="add one to /etc/apt/sources.list.d, then: apt-get update",
    )


def _build(
    definition: GuestDefinition, keys: SshKeys, made: Path, key: str, progress: Callable[[str], None]
) -> None:
    mirror = debian_mirror()
    suites = [definition.suite, *definition.also_suites]
    log = made.parent / "build.log"
    settings = made.parent / "settings"
    settings.mkdir()
    (settings / "modules").write_text("".join(f"{module}\n" for module in definition.initrd_modules))
    (settings / "authorized_keys").write_text(keys.client_public + "\n")
    shutil.copy(keys.host, settings / "ssh_host_ed25519_key")
    shutil.copy(keys.host.with_suffix(".pub"), settings / "ssh_host_ed25519_key.pub")
    (settings / "network").write_text(
        f"[Match]\nType=ether\n[Network]\nAddress={GUEST_ADDRESS}/24\nGateway={GATEWAY_ADDRESS}\n"
        # passt learns the guest's MAC address from the first frame that it sends, and forwards nothing
        # until then. That frame is duplicate detection of the IPv6 link-local address: leave it on.
        "LinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n"
    )
    (made / "boot").mkdir()

    def script(*words: str) -> str:
        # mmdebstrap passes a hook to sh, with the tree as $1.
        what, *rest = map(shlex.quote, words)
        return " ".join(["--customize-hook=sh", shlex.quote(str(_SCRIPT)), what, '"$1"', *rest])

    argv = [
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
        f"--customize-hook=download /boot/kernels {made}/kernels",
        f"--customize-hook=download /boot/packages {made}/packages",
        f"--customize-hook=copy-out /boot {made}",
        script("disk", f"{made}/disk.raw", str(definition.disk)),
        definition.suite,
        "/dev/null",
        *(f"deb {mirror} {suite} main" for suite in suites),
    ]
    with log.open("wb") as sink:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                timeout=BUILD_TIMEOUT_SECONDS,
                check=False,
            )
            failure = "" if done.returncode == 0 else f"mmdebstrap ended with code {done.returncode}"
        except subprocess.TimeoutExpired:
            failure = f"mmdebstrap took longer than {BUILD_TIMEOUT_SECONDS:.0f} s"
    if failure:
        tail = log.read_text(errors="replace").splitlines()[-25:]
        raise InfrastructureError(
            f"building the image {definition.name} failed: {failure}",
            details="\n".join(tail),
            hint="check the network and the mirror (apt-get update), then run the same command again",
        )
    releases = dict(line.split() for line in (made / "kernels").read_text().splitlines())
    for release in releases.values():
        if not _SAFE_RELEASE.fullmatch(release):
            raise InfrastructureError(f"a kernel package names its release {release!r}")
    packages = dict(line.split() for line in (made / "packages").read_text().splitlines())
    (made / "disk.raw").chmod(0o444)
    (made / "definition.json").write_text(definition.model_dump_json(indent=2))
    facts = {"key": key, "releases": releases, "packages": packages, "recipe": RECIPE}
    (made / "image.json").write_text(json.dumps(facts, indent=2))
    progress(f"image built: kernels {', '.join(releases.values())}")


def list_images(cache: Path) -> list[dict[str, object]]:
    """What is in the cache: name, kernels and bytes on disk of each image."""
    found = []
    for facts in sorted((cache / "images").glob("*/image.json")):
        image = find_image(facts.parent, facts.parent.name.rpartition("-")[2])
        if image is not None:
            size_bytes = sum(
                path.stat().st_blocks * 512 for path in facts.parent.rglob("*") if path.is_file()
            )
            shown = {name: value for name, value in asdict(image).items() if name in {"key", "releases"}}
            found.append(
                {
                    "name": facts.parent.name.rpartition("-")[0],
                    **shown,
                    "bytes": size_bytes,
                    "folder": str(facts.parent),
                }
            )
    return found
