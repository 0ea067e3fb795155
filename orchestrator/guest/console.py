"""A guest's serial console: copied where it is kept, bounded, and watched for a panic."""

from __future__ import annotations

import re
from pathlib import Path

MAX_CONSOLE_BYTES = 4 << 20
TAIL_LINES = 25
_PANIC = re.compile(r"(Kernel panic - not syncing[^\r\n]{0,200})")
# ANSI escapes and other control characters, which a terminal would act on.
_ESCAPES = re.compile(r"\x1b(\[[0-9;?!]*[ -/]*[@-~]|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text from a guest without what would move a cursor, clear a screen or ring a bell."""
    return _ESCAPES.sub("", text.replace("\r\n", "\n"))


class Console:
    """What the guest printed, as QEMU writes it to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def text(self) -> str:
        """All of it, up to a bound: the beginning of an endless console is kept, and its end."""
        with self.path.open("rb") as stream:
            start = stream.read(MAX_CONSOLE_BYTES // 2)
            size = self.path.stat().st_size
            if size > MAX_CONSOLE_BYTES:
                stream.seek(-MAX_CONSOLE_BYTES // 2, 2)
            rest = stream.read(MAX_CONSOLE_BYTES // 2)
        return printable((start + rest).decode(errors="replace"))

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines, for an error message."""
        return "\n".join(line[:300] for line in self.text().splitlines()[-lines:])

    def panic(self) -> str:
        """The line of a kernel panic, or nothing."""
        found = _PANIC.search(self.text())
        return found[1] if found else ""
