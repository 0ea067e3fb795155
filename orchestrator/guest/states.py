"""Saved states: guests that have booted and been set up, kept with their memory, for trials to start from.

    <cache>/states/<guest>-<key>.<boot>/
        state.json     what the guest was made of; written last, so a state without it is none
        memory.sav     libvirt's save image
        disk.qcow2     what the guest had written by then; every trial writes to an overlay of it
        console.log    what it had printed by then
        seal.json      what these files were when they were made (`orchestrator.guest.seal`)

A state is made below another name and renamed when it is whole; one that it replaces goes only then. The key
is a hash of all that decides what such a guest is, so one that no longer fits is not found, and made anew.

Trials that start from one state are restores of one boot: what they have in common is that boot's, not the
guest's. So a guest has as many states as its runs need boots, each booted for itself and numbered.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import GuestError, InfrastructureError
from orchestrator.guest.cache import is_locked, locked
from orchestrator.guest.seal import damage, seal, sealed_base, sealed_crc

MOST_STATES = 96  # a night of two kernels in three scenarios has some forty, of 250 MiB each
MOST_BYTES = 24 << 30
_FORMAT = 1
_UNFINISHED = ".saving-"
_FACTS = "state.json"
_BOOT_ID = "id"  # in it: what no other boot has
_FILES = ("memory.sav", "disk.qcow2", "console.log")
IMAGE_DISK = "disk.raw"
_REASON_CHARACTERS = 400  # of the line in which a run tells why it makes a state anew

Started = TypeVar("Started")


@dataclass(frozen=True)
class GuestSpec:
    """All that decides what a guest is when it has been set up, before an arm's own settings.

    Trials with the same spec start from the same state, whatever else their arms differ in.
    """

    guest: str
    image: str
    """Key of the image."""
    release: str
    kernel: str
    """Hash of kernel and initrd."""
    domain: str
    """Its XML (the devices, the kernel's command line), without what belongs to a single run."""
    installed: tuple[tuple[str, str], ...]
    """What is set up, and how: names of files and the hash of each."""
    accel: str
    cpu: str
    versions: tuple[tuple[str, str], ...]
    """Of QEMU and libvirt: neither need load what another version saved."""
    boot: int = 1
    """Which of the boots of this guest, counted from 1."""

    @property
    def guest_key(self) -> str:
        """Names the guest, whichever boot: 16 hexadecimal digits."""
        guest = {name: value for name, value in asdict(self).items() if name != "boot"}
        text = json.dumps([_FORMAT, guest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """Names the state: the guest's key, a dot, the number of the boot."""
        return f"{self.guest_key}.{self.boot}"


@dataclass(frozen=True)
class SavedState:
    """A guest's memory and disk as they were."""

    folder: Path

    @property
    def key(self) -> str:
        """The key of what it was made of."""
        return self.folder.name.rpartition("-")[2]

    @property
    def boot_name(self) -> str:
        """Names the very boot that was saved: a state that is made again has another name.

        Raises OSError, ValueError or KeyError where the state is not whole.
        """
        return f"{self.key}-{json.loads((self.folder / _FACTS).read_text())[_BOOT_ID]}"

    @property
    def memory(self) -> Path:
        """libvirt's save image."""
        return self.folder / _FILES[0]

    @property
    def disk(self) -> Path:
        """The overlay that the guest wrote to until it was saved."""
        return self.folder / _FILES[1]

    @property
    def console_log(self) -> Path:
        """What it printed until then."""
        return self.folder / _FILES[2]


def hash_files(files: Iterable[Path]) -> str:
    """One hash of the contents of some files."""
    digests = []
    for path in files:
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def start_from_state(
    cache: Path,
    spec: GuestSpec,
    *,
    make: Callable[[SavedState], None],
    restore: Callable[[SavedState], Started],
    tell: Callable[[str], None],
) -> Started:
    """What `restore` gives, from the state of `spec`; `make` fills the folder of one that is not there.

    A state that is damaged, or cannot be restored, is made anew, once; `tell` is given the reason. It is kept
    until its successor is whole, which tells a fault of the machine from one of the state. Another run that
    wants the same state waits. Raises what `make` and the second `restore` raise.
    """
    with locked(_lock(cache, spec.key)):
        state = find_state(cache, spec)
        if state is None:
            return restore(_made(cache, spec, make))
        os.utime(state.folder / _FACTS)  # the least recently used go first
        wrong = _damage(cache, spec, state)
        if wrong:
            tell(f"the saved state {state.folder.name} is damaged and is made anew: {wrong}")
            return restore(_made(cache, spec, make))
        try:
            return restore(state)
        except (InfrastructureError, GuestError) as error:
            refused = error
        wrong = _damage(cache, spec, state, thorough=True)
        found = f"it is damaged: {wrong}" if wrong else "its files are as they were sealed"
        why = " ".join(f"{refused.brief} {refused.details}".split())[:_REASON_CHARACTERS]
        tell(f"the saved state {state.folder.name} could not be restored ({why}) and is made anew; {found}")
        try:
            fresh = _made(cache, spec, make)
        except (InfrastructureError, GuestError) as error:
            error.details = (
                f"{error.details}\n"
                f"Before that the saved state {state.folder.name} could not be restored; {found}"
                f"{'' if wrong else ', so the fault is the machine, and it is kept'}:\n"
                f"{refused.brief}\n{refused.details}"
            ).strip()
            raise
        return restore(fresh)


def ensure_state(cache: Path, spec: GuestSpec, *, make: Callable[[SavedState], None]) -> None:
    """Have the state of `spec` in the cache; `make` fills its folder if it is not there."""
    with locked(_lock(cache, spec.key)):
        if find_state(cache, spec) is None:
            _made(cache, spec, make)


def unfinished_states(cache: Path) -> list[Path]:
    """What killed runs had begun to save. One that is being made is locked, and is none of these."""
    found = sorted((cache / "states").glob(f"{_UNFINISHED}*"))
    return [folder for folder in found if not is_locked(_lock(cache, folder.name.split("-")[1]))]


def list_states(cache: Path) -> list[dict[str, object]]:
    """The states in the cache, the most recently used first: guest, key, kernel, bytes on disk, folder."""
    found = sorted((cache / "states").glob(f"*/{_FACTS}"), key=lambda path: -path.stat().st_mtime)
    listed = []
    for facts in found:
        name, _, key = facts.parent.name.rpartition("-")
        listed.append(
            {
                "name": name,
                "key": key,
                "release": json.loads(facts.read_text()).get("release", ""),
                "bytes": _bytes(facts.parent),
                "folder": str(facts.parent),
            }
        )
    return listed


def remove_state(cache: Path, folder: Path) -> None:
    """Remove a state. A guest that was started from it goes on: QEMU has its files open."""
    with locked(_lock(cache, SavedState(folder).key)):
        (folder / _FACTS).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def find_state(cache: Path, spec: GuestSpec) -> SavedState | None:
    """The state of `spec`, if it is in the cache and whole."""
    folder = _folder(cache, spec)
    try:
        written = json.loads((folder / _FACTS).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(written, dict) or not isinstance(written.pop(_BOOT_ID, None), str):
        return None
    whole = all((folder / name).is_file() for name in _FILES)
    return SavedState(folder) if whole and written == json.loads(json.dumps(asdict(spec))) else None


def _damage(cache: Path, spec: GuestSpec, state: SavedState, *, thorough: bool = False) -> str:
    """What keeps a state from being what it was, in words; empty where nothing does."""
    base = sealed_base(state.folder)
    if base is not None and base != _base_crc(cache, spec):
        return "the image that its disk is an overlay of was built again since"
    return damage(state.folder, _FILES, thorough=thorough)


def _base_crc(cache: Path, spec: GuestSpec) -> int | None:
    return sealed_crc(cache / "images" / f"{spec.guest}-{spec.image}", IMAGE_DISK)


def _made(cache: Path, spec: GuestSpec, make: Callable[[SavedState], None]) -> SavedState:
    states = cache / "states"
    folder = _folder(cache, spec)
    for killed in states.glob(f"{_UNFINISHED}{spec.key}-*"):  # we have its lock: no other process makes it
        shutil.rmtree(killed, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{spec.key}-", dir=states))
    try:
        make(SavedState(scratch))
        seal(scratch, _FILES, base=_base_crc(cache, spec))
        facts = {**asdict(spec), _BOOT_ID: secrets.token_hex(2)}
        (scratch / _FACTS).write_text(json.dumps(facts, indent=2))
        with suppress(FileNotFoundError):
            # Below a name that goes with what killed runs left.
            folder.rename(states / f"{_UNFINISHED}{spec.key}-former")
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(states / f"{_UNFINISHED}{spec.key}-former", ignore_errors=True)
    _keep_within_bounds(cache, folder)
    return SavedState(folder)


def _keep_within_bounds(cache: Path, newest: Path) -> None:
    kept, bytes_kept = 0, 0
    for entry in list_states(cache):
        folder = Path(str(entry["folder"]))
        kept, bytes_kept = kept + 1, bytes_kept + int(str(entry["bytes"]))
        # One that somebody restores this moment was used this moment, so it is not among the last.
        if folder != newest and (kept > MOST_STATES or bytes_kept > MOST_BYTES):
            shutil.rmtree(folder, ignore_errors=True)


def _folder(cache: Path, spec: GuestSpec) -> Path:
    return cache / "states" / f"{spec.guest}-{spec.key}"


def _lock(cache: Path, key: str) -> Path:
    return cache / "states" / ".locks" / key


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())
