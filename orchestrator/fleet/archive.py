"""The folder of a trial on its way: compressed, of bounded size, named by its SHA-256."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from orchestrator.errors import InfrastructureError
from orchestrator.units import format_size

MOST_FILES: Final = 10_000
# What is large in a trial is compressed already: parquet and npz.
_LEVEL: Final = 3


@dataclass(frozen=True)
class Packed:
    """A compressed folder."""

    data: bytes
    sha256: str


def pack(folder: Path, most_bytes: int) -> Packed:
    """Compress the regular files of a folder. Raises InfrastructureError where they are too many or large."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    if len(files) > MOST_FILES or size > most_bytes:
        raise InfrastructureError(
            f"{folder.name} has {len(files)} files of {format_size(size)}: at most {MOST_FILES} of "
            f"{format_size(most_bytes)} are taken from a host",
            hint="`largest_trial` in fleet.toml bounds it",
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=_LEVEL) as archive:
        for path in files:
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=_without_owner)
    data = buffer.getvalue()
    return Packed(data, hashlib.sha256(data).hexdigest())


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(packed: Packed, folder: Path, most_bytes: int) -> None:
    """Make `folder` of what `pack` made. Raises InfrastructureError for what is damaged, or is no such thing:
    links, special files, paths that lead elsewhere, more or larger files than allowed."""
    if hashlib.sha256(packed.data).hexdigest() != packed.sha256:
        raise InfrastructureError("the folder of the trial is not what its SHA-256 says")
    folder.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(packed.data), mode="r|gz") as archive:
            left = most_bytes
            for number, member in enumerate(archive):
                left -= member.size
                fault = _fault(member, number, left)
                if fault:
                    raise InfrastructureError(f"the folder of the trial is refused: {fault}")
                _write(archive, member, folder)
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise InfrastructureError(f"the folder of the trial cannot be unpacked: {error}") from None


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    # Not extract(): its filters are of Python 3.11.4 (PEP 706), and Debian 12 has 3.11.2.
    source = archive.extractfile(member)
    if source is None:
        raise InfrastructureError(f"the folder of the trial is refused: {member.name[:200]!r} is no file")
    place = folder / member.name
    place.parent.mkdir(parents=True, exist_ok=True)
    with source, place.open("xb") as sink:
        shutil.copyfileobj(source, sink)


def _fault(member: tarfile.TarInfo, number: int, left: int) -> str:
    path = PurePosixPath(member.name)
    if not member.isreg():
        return f"{member.name[:200]!r} is no file"
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return f"{member.name[:200]!r} leads out of it"
    if number >= MOST_FILES:
        return f"it has more than {MOST_FILES} files"
    return "it is too large" if left < 0 else ""
