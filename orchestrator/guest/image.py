"""Guest images: built from Debian packages with mmdebstrap, cached by what they are made of."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import InfrastructureError
from orchestrator.guest.build import build_image, recipe
from orchestrator.guest.cache import is_locked, locked
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.seal import damage, seal
from orchestrator.guest.states import IMAGE_DISK
from orchestrator.host.accel import KernelFile
from orchestrator.suggestion import suggest

_UNFINISHED = ".building-"
_BOOT = ("vmlinuz", "initrd.img")


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
        return self.folder / IMAGE_DISK

    @property
    def files(self) -> tuple[str, ...]:
        """What guests are booted from, as paths below its folder."""
        return (
            IMAGE_DISK,
            *(f"boot/{part}-{one}" for one in sorted(set(self.releases.values())) for part in _BOOT),
        )

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
                f"the image has no kernel {kernel!r}", hint=suggest(kernel, sorted(self.releases))
            )
        boot = self.folder / "boot"
        return BootFiles(
            kernel=boot / f"{_BOOT[0]}-{release}", initrd=boot / f"{_BOOT[1]}-{release}", release=release
        )

    def kernel_to_try(self, kernel: str) -> KernelFile:
        """A kernel of the image, to try KVM with."""
        path = self.boot_files(kernel).kernel
        return KernelFile(path, f"{self.folder.name}/boot/{path.name}")


def image_key(definition: GuestDefinition, keys: SshKeys) -> str:
    """Hash of all that an image is made of, apart from the day's package versions (see `image.json`)."""
    parts = {"definition": definition.baked_in, "recipe": recipe(definition, keys)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def find_image(folder: Path, key: str) -> Image | None:
    """The cached image, or None when it was never completed."""
    try:
        facts = json.loads((folder / "image.json").read_text())
        return Image(folder=folder, key=key, releases=facts["releases"], packages=facts["packages"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None


def ensure_image(
    definition: GuestDefinition,
    keys: SshKeys,
    cache: Path,
    *,
    progress: Callable[[str], None],
    refresh: bool = False,
) -> Image:
    """The image of a definition: from the cache, else built now (about a minute, needs the mirror).

    One that is not what it was when it was built is built again; it is kept until then.
    """
    key = image_key(definition, keys)
    images = cache / "images"
    folder = images / f"{definition.name}-{key}"
    with locked(images) as lock:
        image = None if refresh else find_image(folder, key)
        wrong = damage(folder, image.files) if image else ""
        if wrong:
            progress(f"the guest image {folder.name} is damaged: {wrong}")
        if image is None or wrong:
            progress(f"building the guest image {definition.name} (kept in {folder})")
            # The lock is ours, so no process builds there now: a build holds it until mmdebstrap has ended,
            # also when the orchestrator that started it was killed.
            for killed in images.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(killed, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=images) as scratch:
                made = build_image(definition, keys, Path(scratch), lock)
                facts = {"key": key, "releases": made.releases, "packages": made.packages}
                seal(made.folder, Image(made.folder, key, made.releases, made.packages).files)
                (made.folder / "image.json").write_text(json.dumps(facts, indent=2))
                if folder.exists():
                    folder.rename(Path(scratch) / "former")
                made.folder.rename(folder)
            image = find_image(folder, key)
            assert image is not None  # noqa: S101  # written two lines above
        return image


def unfinished_builds(cache: Path) -> list[Path]:
    """What killed builds left in the cache. Empty while a build is going on: it may be that one's."""
    images = cache / "images"
    # In this order: a build that begins after the listing is not in it, one from before holds the lock.
    found = sorted(images.glob(f"{_UNFINISHED}*"))
    return [] if is_locked(images) else found


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
