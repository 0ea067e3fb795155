"""`blame live`: this machine, or one that ssh reaches, as it is now."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.status import Status

from orchestrator.cli.blame_live_view import show
from orchestrator.cli.output import err, print_json
from orchestrator.errors import BadInputError
from orchestrator.host_kinds import host_kind
from orchestrator.host_kinds.base import LOCAL
from orchestrator.units import GIB, PMD_BYTES

if TYPE_CHECKING:
    from orchestrator.export.live_document import LiveDocument
    from orchestrator.host.shell import HostShell

LIVE: Final = "live"
_MOST_BLOCK_BYTES: Final = 64 * GIB
_QUIET_SECONDS: Final = 2.0
_LINE_SECONDS: Final = 10.0  # between two lines where there is no terminal


def show_live(connect: str | None, block_bytes: int | None, *, list_blocks: bool, as_json: bool) -> None:
    """Read a machine's memory and print what was found. Raises BadInputError and InfrastructureError."""
    found = _read(connect, block_bytes)
    if as_json:
        print_json(found.as_json(), verb=f"blame {LIVE}")
    else:
        show(found, list_blocks=list_blocks, connect=connect)


def _read(connect: str | None, block_bytes: int | None) -> LiveDocument:
    from orchestrator.export.live_document import LiveDocument
    from orchestrator.host.live_memory import read_live

    if block_bytes is not None and not PMD_BYTES <= block_bytes <= _MOST_BLOCK_BYTES:
        raise BadInputError(
            "of a running machine a block has 2MiB to 64GiB", hint="the kernel isolates pageblocks of 2 MiB"
        )
    with _shell(connect) as shell, _Progress() as progress:
        began, spent = time.monotonic(), time.process_time()
        reading = read_live(shell, progress.tell)
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - spent
        return LiveDocument.of(shell.name, reading, block_bytes, seconds, cpu_seconds)


@contextmanager
def _shell(connect: str | None) -> Iterator[HostShell]:
    """The machine that `--connect` names. Its libvirt is not asked for anything."""
    from orchestrator.host.shell import HostShell, remote_shell
    from orchestrator.host.ssh import user_target

    kind = host_kind(connect or LOCAL)
    if kind.is_guest:
        raise BadInputError(f"{kind.text} is up only while a run is", hint="orchestrator lab up")
    if not kind.elsewhere:
        yield HostShell()
        return
    with tempfile.TemporaryDirectory(prefix="orchestrator-blame-") as folder:
        address = kind.address(Path(folder))
        if isinstance(address, str):
            address = user_target(address, Path(folder))
        if address is None:
            raise BadInputError(f"{kind.text} cannot be reached by ssh")
        with remote_shell(address) as shell:
            yield shell


class _Progress:
    """Says how far reading is once it takes seconds: a line that changes on a terminal, else a few lines."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._wait = _QUIET_SECONDS
        self._status: Status | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, done: int, frames: int) -> None:
        """`done` of `frames` were read."""
        if time.monotonic() - self._said < self._wait or done == frames:
            return
        words = f"read {done:,} of {frames:,} page frames"
        if not err.is_terminal:
            err.print(words)
            self._said, self._wait = time.monotonic(), _LINE_SECONDS
        elif self._status is None:
            self._wait = 0.0
            self._status = err.status(words)
            self._status.start()
        else:
            self._status.update(words)
