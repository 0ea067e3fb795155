"""The host of guests: the machine where QEMU runs, be it this one or one that ssh reaches.

All that is read or done there goes through one reader (`orchestrator.host.reader`), which is called directly
here and sent there otherwise. So there is one code path for both.
"""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.errors import InfrastructureError
from orchestrator.host import reader
from orchestrator.host.collapse import Collapsed, Identity
from orchestrator.host.remote import CALL_SECONDS, RemoteReader
from orchestrator.host.ssh import SshTarget
from orchestrator.interrupts import deferred

PLACE_SECONDS = 1800.0
REMOTE_CACHE = "/var/cache/orchestrator/placed"
_PACKED = 1  # zlib: flags pack to a fiftieth and less in no time


Call: TypeAlias = Callable[..., Any]


class HostShell:
    """A host. Calls raise OSError as the kernel there has it, and HostLostError when it does not answer.

    `target` is None for this machine.
    """

    def __init__(self, call: Call = lambda name, *words, **_: reader.CALLS[name](*words)) -> None:
        self.target: SshTarget | None = None
        self._call = call

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        return self.target is None

    @property
    def name(self) -> str:
        """For people."""
        return self.target.name if self.target else "this machine"

    def texts(self, *patterns: str) -> dict[str, str]:
        """Contents of small files by path; what is not there is left out. Patterns as in glob(7)."""
        found: dict[str, str] = self._call("texts", list(patterns))
        return found

    def text(self, path: str) -> str:
        """One small file; raises FileNotFoundError."""
        found = self.texts(path)
        if path not in found:
            raise FileNotFoundError(2, "no such file on the host", path)
        return found[path]

    def find_process(self, name: str, *words: str) -> int | None:
        """The process of that name with all those words on its command line."""
        found: int | None = self._call("find_process", name, list(words))
        return found

    def vms(self, seconds: float) -> dict[str, Any]:
        """Processes that hold a VM of KVM's open, or whose program runs VMs (`reader.vms`)."""
        found: dict[str, Any] = self._call("vms", seconds, seconds=seconds + CALL_SECONDS)
        return found

    def large_mappings(self, pid: int, least: int) -> list[str]:
        """Lines of /proc/PID/maps, of writable mappings of `least` bytes and more."""
        return [str(line) for line in self._call("large_mappings", pid, least)]

    def ram_regions(self, pid: int, ticks: int, address: int, size: int, seconds: float) -> bytes:
        """As `page_regions`, in bounded pieces, and of the process that began at `ticks` only."""
        words = (pid, ticks, address, size, seconds)
        return bytes(self._call("ram_regions", *words, seconds=seconds + CALL_SECONDS))

    def regular_text(self, path: str, most: int) -> str:
        """A file whose path is another process's word: no link, no device, no FIFO. Raises OSError."""
        return str(self._call("regular_text", path, most))

    def page_bits(self, pid: int, address: int, pages: int) -> bytes:
        """A byte for each page: the upper eight bits of its entry in pagemap."""
        return bytes(self._call("page_bits", pid, address, pages))

    def page_regions(self, pid: int, address: int, size: int) -> bytes:
        """(start, end, categories) of PAGEMAP_SCAN, u64 each."""
        return bytes(self._call("page_regions", pid, address, size))

    def page_tables(self, pid: int, seconds: float) -> dict[str, Any]:
        """What a process's pages need of page tables, as counts (`orchestrator.host.page_tables`)."""
        found: dict[str, Any] = self._call("page_tables", pid, seconds, seconds=seconds + CALL_SECONDS)
        return found

    def cpu_seconds(self) -> float:
        """CPU time that the reader has used there so far; on this machine, this process."""
        return float(self._call("cpu_seconds"))

    def page_words(self, name: str, first: int, frames: int) -> bytes:
        """A u64 for each page frame from `first` on, of /proc/kpageflags, kpagecount or kpagecgroup.

        Fewer where memory ends. Raises InfrastructureError where they do not come as they were sent.
        """
        found = bytes(self._call("page_words", name, first, frames, 0 if self.is_here else _PACKED))
        if self.is_here:
            return found
        unpacking = zlib.decompressobj()
        try:
            words = unpacking.decompress(found, frames * 8 + 1)
        except zlib.error as error:
            raise InfrastructureError(f"what {self.name} sent of {name} cannot be read: {error}") from error
        if len(words) > frames * 8 or not unpacking.eof:
            raise InfrastructureError(f"{self.name} sent more of {name} than it was asked for")
        return words

    def folders(self, root: str, most: int) -> dict[int, str]:
        """Path below `root` of `root` and the folders in it, by inode; of `most` at the most."""
        return {int(inode): str(path) for inode, path in self._call("folders", root, most)}

    def memory(self, pid: int, runs: Sequence[tuple[int, int]]) -> bytes:
        """Bytes of a process, of each (address, size)."""
        return bytes(self._call("memory", pid, list(runs)))

    def identity(self, pid: int) -> Identity:
        """Whose a process id is (`collapse.identity`)."""
        return Identity(*self._call("identity", pid))

    def collapse(
        self, pid: int, whose: Identity, addresses: Sequence[int], min_present: int, room_bytes: int
    ) -> Collapsed:
        """Make huge pages of ranges of 2 MiB of a process (`collapse.collapse`)."""
        return Collapsed(*self._call("collapse", pid, list(whose), list(addresses), min_present, room_bytes))

    def guest_counters(self, pid: int, events: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Hardware counters of a QEMU's vCPUs in guest mode (`perf_counters.guest_counters`)."""
        found: dict[str, Any] = self._call("guest_counters", pid, [list(event) for event in events])
        return found

    def tail(self, path: str, offset: int, most: int) -> bytes:
        """What a file has from `offset` on."""
        return bytes(self._call("tail", path, offset, most))

    def kernel_log(self, *words: str, seconds: float) -> list[str]:
        """What its kernel logged in the last `seconds` with any of the words in it, oldest first."""
        return [str(line) for line in self._call("kernel_log", list(words), seconds)]

    def write(self, path: str, text: str) -> None:
        """Write a file that is there."""
        self._call("write", path, text)

    def set_and_restore(self, path: str, text: str, former: str, *, seconds: float) -> None:
        """Write a file of /sys, and at once what it said before (`reader.set_and_restore`)."""
        self._call("set_and_restore", path, text, former, seconds=seconds)

    def free_port(self) -> int:
        """A TCP port of its 127.0.0.1 that no process listens on now."""
        return int(self._call("free_port"))

    def run(self, argv: Sequence[str], *, seconds: float, check: bool = True) -> str:
        """A command to its end; what it printed on standard output. Raises InfrastructureError."""
        done = self._call("run", list(argv), seconds, seconds=seconds + CALL_SECONDS)
        if check and done["code"] != 0:
            raise InfrastructureError(
                f"{argv[0]} failed on {self.name}", details=str(done["err"]).strip()[-2000:]
            )
        return str(done["out"])

    def watch(
        self,
        argv: Sequence[str],
        *,
        wanted: Sequence[str],
        hopeless: str,
        seconds: float,
        stopped: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """A command until it has printed what is wanted, or what makes that hopeless (`reader.watch`).

        `stopped` can end it early on this machine only.
        """
        asked = [stopped] if self.is_here else []
        found: dict[str, Any] = self._call(
            "watch", list(argv), list(wanted), hopeless, seconds, *asked, seconds=seconds + CALL_SECONDS
        )
        return found

    def place(self, path: Path, key: str) -> Path:
        """A file of ours as the host has it: itself, or a copy, which is kept there under `key`."""
        if self.target is None:
            return path
        there = f"{REMOTE_CACHE}/{key}"
        if not self.run(["find", there, "-maxdepth", "0"], seconds=CALL_SECONDS, check=False):
            self.run(["mkdir", "-p", str(Path(there).parent)], seconds=CALL_SECONDS)
            _copy(path, self.target, f"{there}.{os.getpid()}")
            self.run(["mv", f"{there}.{os.getpid()}", there], seconds=CALL_SECONDS)
        return Path(there)

    @contextmanager
    def folder(self, here: Path, *, keep: bool = False) -> Iterator[Path]:
        """A folder for a guest's files: `here`, which is made, or one there, which goes in the end.

        With `keep` it stays there, unless something failed.
        """
        if self.target is None:
            here.mkdir(mode=0o711, parents=True)
            yield here
            return
        here.mkdir(mode=0o711, parents=True, exist_ok=True)
        pattern = "/var/tmp/orchestrator-guest-XXXXXXXX"  # noqa: S108  # mktemp(1) makes it, with mode 700
        there = ""
        try:
            with deferred():  # else its name would not be known
                there = self.run(["mktemp", "-d", pattern], seconds=CALL_SECONDS).strip()
            self.run(["chmod", "711", there], seconds=CALL_SECONDS)
            yield Path(there)
        except BaseException:
            keep = False
            raise
        finally:
            # A host that is gone has no folder, either.
            with suppress(InfrastructureError, OSError):
                if there and not keep:
                    self.run(["rm", "-rf", "--one-file-system", there], seconds=CALL_SECONDS)


def _copy(path: Path, target: SshTarget, there: str) -> None:
    # Holes stay holes: a guest's disk is mostly that.
    pack = subprocess.Popen(["zstd", "-1", "-T0", "-q", "-c", str(path)], stdout=subprocess.PIPE)
    unpack = subprocess.Popen(
        target.argv("zstd", "-q", "-d", "--sparse", "-f", "-o", there, "-"),
        stdin=pack.stdout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert pack.stdout is not None  # noqa: S101  # it is a pipe
    pack.stdout.close()  # it is the other's now
    try:
        _, said = unpack.communicate(timeout=PLACE_SECONDS)
    except BaseException as error:
        unpack.kill()
        unpack.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise InfrastructureError(f"copying {path} to {target.name} took too long") from error
        raise
    finally:
        pack.kill()
        pack.wait()
    if unpack.returncode:
        raise InfrastructureError(
            f"cannot copy {path} to {target.name}", details=said.decode(errors="replace").strip()[-2000:]
        )


@contextmanager
def remote_shell(target: SshTarget) -> Iterator[HostShell]:
    """The host at the other end of ssh. Raises InfrastructureError when it cannot be reached."""
    with RemoteReader(target) as remote:
        shell = HostShell(remote.call)
        shell.target = target
        yield shell
