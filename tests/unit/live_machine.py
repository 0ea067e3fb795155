"""A machine of a few memory blocks whose files of /proc and /sys are made up, behind the seam to a host."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.host.shell import HostShell
from orchestrator.model.frames import KPF_BUDDY
from orchestrator.model.memory_blocks import FOLDER

BLOCK = 32768  # frames of a memory block of 128 MiB
U64 = NDArray[np.uint64]
NORMAL = """\
Node 0, zone   Normal
  pages free     {free}
        boost    0
        min      100
        low      125
        spanned  {frames}
        present  {frames}
        managed  {frames}
        protection: (0, 0, 0, 0)
      nr_free_pages {free}
    cpu: 0
              count:    {on_lists}
              high:     1553
    cpu: 1
              count:    1
  start_pfn:           {start}
Node 0, zone  Movable
  pages free     0
        min      32
        spanned  0
        present  0
        managed  0
        protection: (0, 0, 0, 0)
"""
MEMINFO = "MemTotal: 524288 kB\nAnonPages: 40 kB\nSlab: 8 kB\nCached: 12 kB\nBuffers: 4 kB\n"


@dataclass
class LiveMachine:
    """`flags` are those of all frames, from 0 on; `later` is what some read the second time.

    `zones` are of each memory block as sysfs has it; block 1 is offline where `offline` says so.
    """

    flags: U64
    later: Mapping[int, int] = field(default_factory=dict)
    mapped: Mapping[int, int] = field(default_factory=dict)
    cgroups: Mapping[int, int] | None = field(default_factory=dict)
    zones: tuple[str, ...] = ()
    offline: frozenset[int] = frozenset()
    zoneinfo: str = ""
    iomem: str = ""
    may: bool = True
    broken: str = ""  # a file that fails in the middle of it
    texts_too: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, blocks: int, **fields: object) -> LiveMachine:
        """With this many blocks of Normal, all frames free."""
        return cls(
            np.full(blocks * BLOCK, 1 << KPF_BUDDY, dtype="<u8"),
            zones=("Normal",) * blocks,
            zoneinfo=NORMAL.format(free=blocks * BLOCK, frames=blocks * BLOCK, on_lists=2, start=0),
            **fields,  # type: ignore[arg-type]  # its own fields
        )

    def shell(self) -> HostShell:
        """The host."""
        return HostShell(self._call)

    def _call(self, name: str, *words: object, **_: object) -> object:
        found: object = getattr(self, f"_{name}")(*words)
        return found

    def _texts(self, patterns: list[str]) -> dict[str, str]:
        files = {f"{FOLDER}/block_size_bytes": "8000000\n", f"{FOLDER}/auto_online_blocks": "online\n"}
        for number, zone in enumerate(self.zones):
            folder = f"{FOLDER}/memory{number}"
            files[f"{folder}/phys_index"] = f"{number:08x}\n"
            files[f"{folder}/state"] = "offline\n" if number in self.offline else "online\n"
            files[f"{folder}/valid_zones"] = f"{zone}\n"
            files[f"/sys/devices/system/node/node0/memory{number}/phys_index"] = ""
        files |= {"/proc/sys/kernel/osrelease": "7.3.4\n"} | self.texts_too
        return {
            path: text
            for path, text in files.items()
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
        }

    def _tail(self, path: str, offset: int, most: int) -> bytes:
        texts = {
            "/proc/zoneinfo": self.zoneinfo,
            "/proc/meminfo": MEMINFO,
            "/proc/iomem": self.iomem,
            "/proc/vmstat": "nr_foll_pin_acquired 12\nnr_foll_pin_released 5\n",
            "/proc/self/mountinfo": (
                "30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                "31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
                "32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            ),
        }
        return texts[path].encode()[offset : offset + most]

    def _folders(self, root: str, most: int) -> list[tuple[int, str]]:
        assert (root, most > 100) == ("/sys/fs/cgroup/memory", True)
        return [(1, "/"), (77, "/a.service")]

    def _page_words(self, name: str, first: int, frames: int, level: int) -> bytes:
        assert not level
        if not self.may:
            raise PermissionError(errno.EACCES, "Permission denied")
        if name == self.broken:
            raise OSError(errno.EIO, "Input/output error")
        again = sum(one[:2] == (name, first) for one in self.asked) > 0
        if frames > 1:  # one frame is asked for to see whether it may be read
            self.asked.append((name, first, frames))
        if name == "kpageflags":
            words = self.flags.copy()
            for pfn, value in self.later.items() if again else ():
                words[pfn] = value
        elif name == "kpagecgroup" and self.cgroups is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        else:
            words = np.zeros(len(self.flags), dtype="<u8")
            for pfn, value in (self.mapped if name == "kpagecount" else self.cgroups or {}).items():
                words[pfn] = value
        return words[first : first + frames].tobytes()
