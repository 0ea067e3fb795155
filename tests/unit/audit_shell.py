"""A host for audits, made of answers of its reader."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from orchestrator.host.shell import HostShell

CPUINFO = "processor\t: 0\nflags\t\t: fpu lm la57 svm\n"
CONFIG = "CONFIG_MMU=y\nCONFIG_PT_RECLAIM=y\n"
ALL_CAPABILITIES = "000001ffffffffff"


def stat(pid: int, comm: str, started: int, state: str = "S") -> str:
    fields = [state, *["0"] * 18, str(started), "0"]
    return f"{pid} ({comm}) {' '.join(fields)}\n"


def status(comm: str, uid: int = 0, **kib: int) -> str:
    lines = "".join(f"{name}:\t{size:8} kB\n" for name, size in kib.items())
    return f"Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n{lines}"


@dataclass
class FakeProcess:
    """A process: what /proc says of it, and what the reader counts."""

    pid: int
    comm: str
    held_kib: int
    uid: int = 0
    state: str = "S"
    started: int = 100
    resident_kib: int = 1 << 20
    answer: Mapping[str, Any] = field(default_factory=dict)
    error: OSError | None = None

    def files(self) -> dict[str, str]:
        sizes = {"VmSize": 1 << 22, "VmRSS": self.resident_kib, "VmPTE": self.held_kib}
        return {
            f"/proc/{self.pid}/stat": stat(self.pid, self.comm, self.started, self.state),
            f"/proc/{self.pid}/status": status(self.comm, self.uid, **sizes),
        }

    def page_tables(self) -> dict[str, Any]:
        if self.error:
            raise self.error
        text = self.files()[f"/proc/{self.pid}/status"]
        return {
            "started": self.started,
            "before": text,
            "after": text,
            "cgroup": "0::/user.slice\n",
            "tables": [self.held_kib // 4 - 2, 1, 1, 1],
            "deposited": 0,
            "zero_only": 0,
            "sparse": 0,
            "unseen": 0,
            "scanned": True,
            "shared": [],
            "libraries": [],
            "cpu_seconds": 0.25,
            "longest_seconds": 0.001,
        } | self.answer


def audited_host(
    *processes: FakeProcess,
    config: str | None = CONFIG,
    cpuinfo: str = CPUINFO,
    capabilities: str = ALL_CAPABILITIES,
) -> HostShell:
    """A host with these processes and a kernel thread. `config` is the kernel's, None if it is nowhere."""
    files = {
        "/proc/sys/kernel/osrelease": "6.99-test\n",
        "/proc/sys/kernel/hostname": "host\x1b[31m\n",
        "/proc/cpuinfo": cpuinfo,
        "/proc/self/status": f"CapEff:\t{capabilities}\n",
        "/proc/2/stat": stat(2, "kthreadd", 1),
        "/proc/2/status": status("kthreadd"),
    }
    for process in processes:
        files |= process.files()
    spent = iter(range(100))

    def texts(patterns: list[str]) -> dict[str, str]:
        return {path: text for path, text in files.items() if any(fnmatch(path, one) for one in patterns)}

    def page_tables(pid: int, _seconds: float) -> dict[str, Any]:
        for process in processes:
            if process.pid == pid:
                return process.page_tables()
        raise OSError(errno.ENOENT, "No such file or directory")

    def tail(path: str, _offset: int, _most: int) -> bytes:
        if path != "/proc/config.gz" or config is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return gzip.compress(config.encode())

    calls: dict[str, Callable[..., Any]] = {
        "texts": texts,
        "page_tables": page_tables,
        "tail": tail,
        "cpu_seconds": lambda: float(next(spent)),
    }
    return HostShell(lambda name, *words, **_: calls[name](*words))
