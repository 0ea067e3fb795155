"""What a guest's kernel complains of: its log, read at the end of a trial.

Complaints are lines that say that memory or page tables are not what they should be, or that the guest's disk
failed it. The latter end the trial: what ran there has not read what was written. Stalls are kept beside them
and are none: a virtual CPU whose host takes its time for others looks the same to its kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import GuestError, InfrastructureError
from orchestrator.guest.boot import Guest
from orchestrator.guest.oom_log import OomKill, find_kills
from orchestrator.printable import printable

# Of the kernel only: what a process writes to /dev/kmsg has another facility (devkmsg_write(), printk.c).
DMESG: Final = ["dmesg", "--kernel"]
DMESG_SECONDS: Final = 60.0
_MOST_LINES: Final = 50
_LINE_CHARACTERS: Final = 300

# Where each is printed, as of Linux 6.12: print_bad_pte() in mm/memory.c, bad_page() in mm/page_alloc.c,
# check_mm() in kernel/fork.c, pgd_clear_bad() and others in mm/pgtable-generic.c, swap_info_get() in
# mm/swapfile.c, page_fault_oops() and die() on x86, report_bug() in lib/bug.c, lib/list_debug.c,
# lib/refcount.c, mm/kasan/report.c, mm/kfence/report.c, mm/page_poison.c, mm/usercopy.c.
_COMPLAINT: Final = re.compile(
    r"""BUG:\ Bad\ page\ (?:map|state|cache)
    | BUG:\ Bad\ rss-counter
    | BUG:\ non-zero\ pgtables_bytes
    | Bad\ pagetable:
    | \bbad\ p[gu4m]d\b
    | Bad\ swap\ (?:file|offset|file\ entry)
    | BUG:\ unable\ to\ handle
    | BUG:\ (?:KASAN|KFENCE|KMSAN)
    | kernel\ BUG\ at
    | \bOops:\ | general\ protection\ fault[,:]
    | list_(?:add|del)\ corruption
    | refcount_t:[ ]
    | pagealloc:\ (?:memory\ corruption|single\ bit\ error)
    | usercopy:\ Kernel\ memory
    | Kernel\ panic\ -\ not\ syncing(?!:\ (?:Out\ of\ memory|System\ is\ deadlocked))
    | WARNING:.*\b(?:mm|arch/x86/mm)/[a-z0-9_/-]+\.[ch]:[0-9]+""",
    re.VERBOSE,
)
# blk_print_req_error() in block/blk-core.c (its words are those of blk_errors[]), buffer_io_error() in
# fs/buffer.c, __ext4_error() and ext4_handle_error() in fs/ext4/super.c, jbd2_journal_abort() in
# fs/jbd2/journal.c. Of a disk that is virtual all are faults of the host, or of the file behind it.
_DISK: Final = re.compile(
    r"""\b(?:I/O|critical\ (?:medium|target|nexus|space\ allocation)|protection|timeout)\ error,\ dev\ vd
    | Buffer\ I/O\ error\ on\ dev\ vd
    | EXT4-fs\ error\ \(device\ vd
    | EXT4-fs\ \(vd[a-z]+\d*\):\ (?:Remounting\ filesystem\ read-only|Delayed\ block\ allocation\ failed)
    | Aborting\ journal\ on\ device\ vd""",
    re.VERBOSE,
)
_STALL: Final = re.compile(
    r"soft lockup - CPU|hard LOCKUP|self-detected stall|detected stalls on CPUs|blocked for more than"
)
# The kernel's first line; where it is gone, the ring buffer has wrapped.
_FIRST_LINE: Final = "Linux version "
_FIRST_LINES: Final = 5


class GuestDiskError(GuestError):
    """The file behind the guest's disk failed it: what ran there was disturbed, whatever it says itself."""


@dataclass(frozen=True)
class KernelLog:
    """What the log of one kernel says.

    `complaints` is None where it could not be read as a whole and what was read has none: `gap` says why.
    `source` is `dmesg` or `console`, of which the latter has errors only. `lines` are the first complaints,
    `stall_lines` the first stalls. `kills` are what its OOM killer ended, which are no complaints: the kernel
    did as it should.
    """

    source: str
    complaints: int | None
    lines: tuple[str, ...]
    stall_lines: tuple[str, ...]
    gap: str = ""
    kills: tuple[OomKill, ...] = ()

    def must_not_tell_of_disk_errors(self) -> None:
        """Raise GuestDiskError where it does."""
        errors = list(_matching(_DISK, list(self.lines)))
        if errors:
            raise GuestDiskError(
                "the guest could not read or write its disk",
                details="\n".join(errors[:_FIRST_LINES]),
                hint="orchestrator doctor   and see the log of this machine's kernel: dmesg | tail",
            )


def find_complaints(text: str) -> tuple[list[str], list[str]]:
    """Lines of a kernel's log that are complaints, and those that tell of stalls."""
    lines = [line.strip()[:_LINE_CHARACTERS] for line in text.splitlines()]
    return [*_matching(_DISK, lines), *_matching(_COMPLAINT, lines)], list(_matching(_STALL, lines))


def read_kernel_log(guest: Guest) -> KernelLog:
    """The log of a guest: by `dmesg` while it answers, else by what its console shows."""
    why = guest.why_dead()
    if why is None:
        try:
            text = printable(guest.shell.run(DMESG, seconds=DMESG_SECONDS).text)
        except InfrastructureError as error:
            unread = f"dmesg could not be read: {error.brief}"
        else:
            return _judged(
                "dmesg", text, "" if _is_whole(text) else "the kernel's log has lost its beginning"
            )
    else:
        unread = f"dmesg could not be read: {why.brief}"
    return _judged("console", guest.console.text(), f"{unread}; the console shows errors only")


def _judged(source: str, text: str, gap: str) -> KernelLog:
    complaints, stalls = find_complaints(text)
    unknown = bool(gap) and not complaints
    return KernelLog(
        source,
        None if unknown else len(complaints),
        tuple(complaints[:_MOST_LINES]),
        tuple(stalls[:_MOST_LINES]),
        gap if unknown else "",
        find_kills(text),
    )


def _is_whole(text: str) -> bool:
    return any(_FIRST_LINE in line for line in text.splitlines()[:_FIRST_LINES])


def _matching(pattern: re.Pattern[str], lines: list[str]) -> Iterator[str]:
    return (line for line in lines if pattern.search(line))
