"""What is read on a host: files, processes, and what QEMU has of a guest's memory.

For a host elsewhere this very file is sent there and run (`serve`), with those that it imports: they use
Python's standard library and nothing else. Here its functions are called directly. `orchestrator.host.shell`
is its only user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

from orchestrator.host.collapse import collapse, identity
from orchestrator.host.page_tables import page_tables
from orchestrator.host.pagemap import MAX_CHUNK_BYTES, exactly, page_bits, page_regions, up_to
from orchestrator.host.perf_counters import guest_counters
from orchestrator.host.vm_processes import large_mappings, ram_regions, regular_text, vms

MAX_TEXT_BYTES = 1 << 18
_WATCH_SECONDS = 0.05

_PAGE_FILES = ("kpageflags", "kpagecount", "kpagecgroup")


def texts(patterns: Sequence[str]) -> dict[str, str]:
    """Contents of files, the longest ones cut: {path: text}. A pattern names all that it matches; what is
    not there, or cannot be read, is left out."""
    found = {}
    for pattern in patterns:
        for path in sorted(_matching(pattern)):
            try:
                with pathlib.Path(path).open("rb") as stream:
                    found[path] = stream.read(MAX_TEXT_BYTES).decode(errors="replace")
            except OSError:
                continue
    return found


def _matching(pattern: str) -> list[str]:
    """As glob.glob of an absolute pattern.

    That keeps what it compiled of up to 32,768 components (lru_cache of fnmatch). One with the id of a QEMU
    in it comes but once, and the process would grow with each guest (docs/soak.md).
    """
    head, star, tail = pattern.partition("*")
    suffix, below, rest = tail.partition("/")
    if not star or any(one in head + suffix for one in "*?["):
        return glob.glob(pattern)  # noqa: PTH207  # what matches is text, and sent as such
    folder, _, prefix = head.rpartition("/")
    try:
        names = os.listdir(folder or "/")  # noqa: PTH208  # as above
    except OSError:
        return []
    least = len(prefix) + len(suffix)
    paths = [
        f"{folder}/{name}"
        for name in names
        if name.startswith(prefix) and name.endswith(suffix) and len(name) >= least
        if prefix or not name.startswith(".")  # as a shell has it
    ]
    if not below:
        return paths
    return [one for path in paths for one in _matching(f"{glob.escape(path)}/{rest}")]


def find_process(name: str, words: Sequence[str]) -> int | None:
    """Id of a process whose name begins with `name` and that has each of `words` on its command line."""
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            comm = (folder / "comm").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        if comm.startswith(name[:15]) and all(word in line for word in words):
            return int(folder.name)
    return None


def page_words(name: str, first: int, frames: int, level: int) -> bytes:
    """A u64 for each page frame from `first` on, of kpageflags, kpagecount or kpagecgroup in /proc; fewer
    where memory ends. Packed by zlib with `level`, or for 0 as they are."""
    if name not in _PAGE_FILES or not 0 < frames * 8 <= MAX_CHUNK_BYTES:
        raise OSError(errno.EINVAL, "not a piece of what is known of page frames")
    with pathlib.Path(f"/proc/{name}").open("rb", buffering=0) as file:
        words = b"".join(up_to(file.fileno(), frames * 8, first * 8))
    return zlib.compress(words, level) if level else words


def folders(root: str, most: int) -> list[tuple[int, str]]:
    """(inode, path below `root`) of `root` and the folders in it, of `most` at the most; none of links."""
    found: list[tuple[int, str]] = []
    for folder, _, _ in os.walk(root):
        if len(found) >= most:
            break
        with contextlib.suppress(OSError):  # it has gone
            found.append((pathlib.Path(folder).stat().st_ino, folder[len(root) :] or "/"))
    return found


def memory(pid: int, runs: Sequence[tuple[int, int]]) -> bytes:
    """Bytes of a process: `runs` are (address, size) each."""
    with pathlib.Path(f"/proc/{pid}/mem").open("rb", buffering=0) as stream:
        return b"".join(exactly(stream.fileno(), size, address) for address, size in runs)


def tail(path: str, offset: int, most: int) -> bytes:
    """What a file has from `offset` on, up to `most` bytes."""
    with pathlib.Path(path).open("rb") as stream:
        stream.seek(offset)
        return stream.read(most)


def kernel_log(words: Sequence[str], seconds: float) -> list[str]:
    """Lines that the kernel logged in the last `seconds` with any of `words` in them, oldest first; none
    where its log is not to be read."""
    found: list[str] = []
    since = time.clock_gettime(time.CLOCK_MONOTONIC) - seconds
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        while True:
            try:
                # A record: "priority,sequence,microseconds,flags;text" (Documentation/ABI/testing/dev-kmsg).
                head, _, text = os.read(log, 8192).decode(errors="replace").partition(";")
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue  # what comes next was overwritten meanwhile
            line = text.partition("\n")[0]
            if int(head.split(",")[2]) / 1e6 >= since and any(word in line for word in words):
                found.append(line)
    finally:
        os.close(log)


def cpu_seconds() -> float:
    """CPU time that the reader's process has used so far, user and system."""
    return time.process_time()


def write(path: str, text: str) -> None:
    """Write a file that is there, as one of /sys."""
    file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def set_and_restore(path: str, text: str, former: str) -> None:
    """Write a file of /sys, and then `former`, which is what it says now, in one call: it is put back even if
    whoever asked is gone meanwhile. Raises OSError: ESTALE where it says something else now, EAGAIN where
    somebody else is in this call."""
    with pathlib.Path(path).open("rb", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock.read(MAX_TEXT_BYTES).decode(errors="replace").strip() != former:
            raise OSError(errno.ESTALE, f"{path} says something else by now")
        try:
            write(path, text)
        finally:
            write(path, former)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(argv: Sequence[str], seconds: float) -> dict[str, Any]:
    """A command to its end: its code, and what it printed, bounded. It ends with us, and after `seconds`."""
    try:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"code": None, "out": "", "err": f"{argv[0]} did not end in {seconds:.0f} s"}
    out, err = (said[-MAX_TEXT_BYTES:].decode(errors="replace") for said in (done.stdout, done.stderr))
    return {"code": done.returncode, "out": out, "err": err}


def watch(
    argv: Sequence[str],
    wanted: Sequence[str],
    hopeless: str,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """A command until it has printed all that is `wanted`, or anything `hopeless` on standard error, or has
    ended, or `seconds` are over; it is killed then. Regular expressions; the wanted ones of standard output.

    `how` is wanted, hopeless, ended, time or stopped; `out` and `err` are what it printed, bounded. It ends
    with us. `stopped` is asked by callers of this machine only.
    """
    began = time.monotonic()
    # Files without a name: nothing stays behind, and no pipe is ever full.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

        def printed(file: Any) -> str:
            return os.pread(file.fileno(), MAX_TEXT_BYTES, 0).decode(errors="replace")

        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            how = ""
            while not how:
                ended = process.poll() is not None  # before reading, so that its last words are read
                over = time.monotonic() - began >= seconds
                if all(re.search(one, printed(out)) for one in wanted):
                    how = "wanted"
                elif re.search(hopeless, printed(err)):
                    how = "hopeless"
                elif ended:
                    how = "ended"
                elif stopped():
                    how = "stopped"
                elif over:
                    how = "time"
                else:
                    time.sleep(_WATCH_SECONDS)
        finally:
            process.kill()
            process.wait()
        return {"how": how, "out": printed(out), "err": printed(err), "seconds": time.monotonic() - began}


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        texts,
        find_process,
        vms,
        large_mappings,
        ram_regions,
        regular_text,
        page_bits,
        page_regions,
        page_tables,
        page_words,
        folders,
        memory,
        identity,
        collapse,
        guest_counters,
        tail,
        kernel_log,
        cpu_seconds,
        write,
        set_and_restore,
        free_port,
        run,
        watch,
    )
}

RAW = frozenset({"ram_regions", "page_bits", "page_regions", "page_words", "memory", "tail"})
"""Those that give bytes; the others give what JSON can say."""


def serve(requests: Iterable[bytes], answers: BinaryIO) -> None:
    """Answer requests, one a line: [call, argument, ...] in JSON. An answer is a line of JSON with the number
    of bytes that follow it, or the error."""
    for line in requests:
        name, *arguments = json.loads(line)
        try:
            found = CALLS[name](*arguments)
        except OSError as error:
            head, body = {"errno": error.errno or errno.EIO, "error": str(error.strerror or error)}, b""
        else:
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            head = {"bytes": len(body)}
        answers.write(json.dumps(head).encode() + b"\n" + body)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
