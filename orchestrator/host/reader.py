"""What is read on a host: files, processes, and what QEMU has of a guest's memory.

For a host elsewhere this very file is sent there and run (`serve`), so it uses Python's standard library
and nothing else. Here its functions are called directly. `orchestrator.host.shell` is its only user.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import glob
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

MAX_TEXT_BYTES = 1 << 18
MAX_CHUNK_BYTES = 64 << 20
_PAGE = 4096
_WATCH_SECONDS = 0.05

# PAGEMAP_SCAN, since Linux 6.7 (include/uapi/linux/fs.h): _IOWR('f', 16, struct pm_scan_arg of 96 bytes).
_PAGEMAP_SCAN = 0xC0606610
_SCAN_PRESENT, _SCAN_SWAPPED, _SCAN_ZERO, _SCAN_HUGE = 1 << 3, 1 << 4, 1 << 5, 1 << 6
_MOST_REGIONS = 1 << 16

# process_madvise(2) of another process, since Linux 5.10; MADV_COLLAPSE, since 6.1 (uapi/asm-generic/).
_PROCESS_MADVISE, _MADV_COLLAPSE = 440, 25
_RANGE = 2 << 20
_STARTED = 19  # in /proc/PID/stat, behind the name


def texts(patterns: Sequence[str]) -> dict[str, str]:
    """Contents of files, the longest ones cut: {path: text}. A pattern names all that it matches; what is
    not there, or cannot be read, is left out."""
    found = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):  # noqa: PTH207  # absolute patterns
            try:
                with pathlib.Path(path).open("rb") as stream:
                    found[path] = stream.read(MAX_TEXT_BYTES).decode(errors="replace")
            except OSError:
                continue
    return found


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


def page_bits(pid: int, address: int, pages: int) -> bytes:
    """Bits 56 to 63 of each page's entry in pagemap, a byte each."""
    with pathlib.Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        raw = _exactly(pagemap.fileno(), pages * 8, address // _PAGE * 8)
    return raw[7::8]


def page_regions(pid: int, address: int, size: int) -> bytes:
    """What a process has of a range: (start, end, categories) in u64 each, as PAGEMAP_SCAN gives them, of all
    pages that are present or swapped out. Raises OSError with ENOTTY where the kernel has no such call."""
    most = min(_MOST_REGIONS, size // _PAGE)
    regions = array.array("Q", bytes(24 * most))
    place, _ = regions.buffer_info()
    found = bytearray()
    start, end = address, address + size
    wanted = _SCAN_PRESENT | _SCAN_SWAPPED
    told = wanted | _SCAN_ZERO | _SCAN_HUGE
    with pathlib.Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        while start < end:
            asked = bytearray(struct.pack("12Q", 96, 0, start, end, 0, place, most, 0, 0, 0, wanted, told))
            count = fcntl.ioctl(pagemap.fileno(), _PAGEMAP_SCAN, asked)
            found += memoryview(regions)[: count * 3].tobytes()
            walked = struct.unpack_from("Q", asked, 32)[0]
            if walked <= start:
                break
            start = walked
    return bytes(found)


def memory(pid: int, runs: Sequence[tuple[int, int]]) -> bytes:
    """Bytes of a process: `runs` are (address, size) each."""
    with pathlib.Path(f"/proc/{pid}/mem").open("rb", buffering=0) as stream:
        return b"".join(_exactly(stream.fileno(), size, address) for address, size in runs)


class Identity(NamedTuple):
    """Whose a process id is."""

    started_ticks: int
    """When the process began, since the boot."""
    user: int
    """As whom it acts."""
    same_namespace: bool
    """Whether it is in the pid namespace of whoever asks; else it is a container's."""
    ours: bool
    """Whether who asks is that user, or root."""


def identity(pid: int) -> Identity:
    """Whose a process id is. Raises OSError where it is nobody's, or not to be looked at."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    status = pathlib.Path(f"/proc/{pid}/status").read_text(errors="replace")
    user = int(re.findall(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)[0])
    theirs, own = (pathlib.Path(f"/proc/{one}/ns/pid").stat().st_ino for one in (pid, "self"))
    return Identity(int(stat[_STARTED]), user, theirs == own, os.geteuid() in {0, user})


class Collapsed(NamedTuple):
    """What became of ranges of 2 MiB that were to become huge pages."""

    done: int
    skipped: int
    """Fewer pages were there by then than are asked for, or there was no room to fill the rest."""
    filled_bytes: int
    """Pages that were not there, in the ranges that are done."""
    errors: dict[str, int]
    """How many met which errno: of MADV_COLLAPSE in madvise(2)."""


def collapse(
    pid: int, whose: Identity | Sequence[int], addresses: Sequence[int], min_present: int, room_bytes: int
) -> Collapsed:
    """Make huge pages of ranges of 2 MiB of a process, each at least `min_present` pages full; contents stay.

    What is missing in them takes at most `room_bytes`. `whose` is the process's `identity` as it was when the
    ranges were chosen. Raises OSError: ESRCH where the id is another process's by now, EPERM where it is not
    ours to act on, ENOTTY where the kernel does not say what is there (before 6.7).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    done = skipped = filled = 0
    errors: dict[str, int] = {}
    process = os.pidfd_open(pid)  # who has it has the process, whatever becomes of the id
    try:
        now = identity(pid)
        if list(now) != list(whose):
            raise OSError(errno.ESRCH, f"process {pid} is another one by now")
        if not (now.same_namespace and now.ours):
            raise OSError(errno.EPERM, f"process {pid} is another user's, or in another pid namespace")
        for address in addresses:
            present = _pages_with_memory(pid, address)
            missing = _RANGE - present * _PAGE
            if present < min_present or missing > room_bytes - filled:
                skipped += 1
                continue
            vector = struct.pack("2Q", address, _RANGE)
            # A call for each: mmap_lock is free in between, and a range that fails keeps no other from it.
            advised = libc.syscall(
                ctypes.c_long(_PROCESS_MADVISE), process, vector, ctypes.c_size_t(1), _MADV_COLLAPSE, 0
            )
            if advised == _RANGE:
                done, filled = done + 1, filled + missing
            else:
                why = str(ctypes.get_errno())
                errors[why] = errors.get(why, 0) + 1
    finally:
        os.close(process)
    return Collapsed(done, skipped, filled, errors)


def _pages_with_memory(pid: int, address: int) -> int:
    """How many pages of a range of 2 MiB are present and not the zero page."""
    regions = struct.iter_unpack("3Q", page_regions(pid, address, _RANGE))
    there = (
        (start, end) for start, end, what in regions if what & (_SCAN_PRESENT | _SCAN_ZERO) == _SCAN_PRESENT
    )
    return int(sum(end - start for start, end in there)) // _PAGE


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
    """A TCP port of 127.0.0.1 that nobody listens on now."""
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


def _exactly(descriptor: int, size: int, offset: int) -> bytes:
    parts = []
    while size:
        part = os.pread(descriptor, min(size, MAX_CHUNK_BYTES), offset)
        if not part:
            raise OSError(errno.ENODATA, "there is nothing at this address")
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        texts,
        find_process,
        page_bits,
        page_regions,
        memory,
        identity,
        collapse,
        tail,
        kernel_log,
        write,
        set_and_restore,
        free_port,
        run,
        watch,
    )
}

RAW = frozenset({"page_bits", "page_regions", "memory", "tail"})
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
