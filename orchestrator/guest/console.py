"""A guest's serial console, as QEMU writes it: read within bounds, and watched for a panic."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import InfrastructureError
from orchestrator.host.shell import HostShell
from orchestrator.printable import printable

MAX_CONSOLE_BYTES = 4 << 20
FLOOD_BYTES = 64 << 20  # a guest that prints this much is filling our disk
TAIL_LINES = 25
_CHUNK_BYTES = 1 << 20
_PANIC = re.compile(r"(Kernel panic - not syncing[^\r\n]{0,200})")
# How an end begins (die() and panic() in arch/x86/kernel/dumpstack.c and kernel/panic.c): its trace is longer
# than a tail, and names the cause at its top.
_ONSET = re.compile(r"BUG: |Oops: |general protection fault|Kernel panic - not syncing")
_TRACE_LINES = 200


class Console:
    """What the guest printed: in `path`, where QEMU writes it, or where `fetch` brings it at every look."""

    def __init__(self, path: Path, fetch: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._fetch = fetch
        self._looked_at = 0
        self._believed_from = 0
        self._panic = ""
        path.touch()

    def text(self, since: int = 0) -> str:
        """All of it from a byte on, up to a bound: of an endless console its beginning and end are kept."""
        self._fetch()
        with self.path.open("rb") as stream:
            stream.seek(since)
            start = stream.read(MAX_CONSOLE_BYTES // 2)
            size = self.path.stat().st_size
            if size - since > MAX_CONSOLE_BYTES:
                stream.seek(-MAX_CONSOLE_BYTES // 2, 2)
            rest = stream.read(MAX_CONSOLE_BYTES // 2)
        return printable((start + rest).decode(errors="replace"))

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines, for an error message; of a panic the first ones."""
        printed = self.text().splitlines()
        last = printed[-_TRACE_LINES:]
        if any(_PANIC.search(line) for line in last):
            onset = next(index for index, line in enumerate(last) if _ONSET.search(line))
            last = last[min(onset, max(len(last) - lines, 0)) :][:lines]
        return "\n".join(line[:300] for line in last[-lines:])

    def panic(self) -> str:
        """A line that looks like that of a kernel panic, or nothing."""
        size = self.size
        if not self._panic and size != self._looked_at:
            found = _PANIC.search(self.text(self._believed_from))
            self._panic = found[1] if found else ""
            self._looked_at = size
        return self._panic

    def disbelieve(self) -> None:
        """What looked like a panic was none: it was printed by a process, as anybody in the guest can."""
        self._believed_from, self._panic = self._looked_at, ""

    @property
    def size(self) -> int:
        """Bytes printed so far."""
        self._fetch()
        return self.path.stat().st_size


def mirrored(shell: HostShell, there: Path, here: Path) -> Console:
    """The console of a guest elsewhere: what it prints to `there` is brought to `here`."""
    if shell.is_here:
        return Console(here)
    # What another guest printed there would hide as much of this one's. QEMU begins anew, too.
    here.write_bytes(b"")

    def fetch() -> None:
        # A host that is lost has no more to tell; what came before is kept.
        with suppress(OSError, InfrastructureError), here.open("ab") as sink:
            while sink.tell() <= FLOOD_BYTES and (part := shell.tail(str(there), sink.tell(), _CHUNK_BYTES)):
                sink.write(part)

    return Console(here, fetch)
