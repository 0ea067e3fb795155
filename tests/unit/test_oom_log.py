"""Who was killed, by the kernel's log: real lines are taken, and nothing else is."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.guest.oom_log import OomKill, find_kills, in_words
from orchestrator.records.events import OomKilled, read_event

# Linux 6.12, as dmesg prints it; the lines around it are of the same kill.
LOG = """\
[   71.120931] sparse-map invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0, oom_score_adj=0
[   71.150001] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/ssh.service,task=sparse-map,pid=312,uid=0
[   71.200011] Out of memory: Killed process 312 (sparse-map) total-vm:524302592kB, anon-rss:2944kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:634680kB oom_score_adj:-17
[   71.300000] oom_reaper: reaped process 312 (sparse-map), now anon-rss:0kB, file-rss:4kB, shmem-rss:0kB
"""  # noqa: E501  # as it is printed
LINE = LOG.splitlines()[2]
KILL = OomKill(
    pid=312,
    comm="sparse-map",
    out_of="memory",
    uptime_seconds=71.200011,
    total_vm_bytes=524302592 << 10,
    anon_rss_bytes=2944 << 10,
    file_rss_bytes=4 << 10,
    shmem_rss_bytes=0,
    page_table_bytes=634680 << 10,
    oom_score_adj=-17,
)
BARE = LINE.partition("] ")[2]


def test_one_kill_is_one_line() -> None:
    assert find_kills(LOG) == (KILL,)
    assert in_words(KILL) == (
        "the OOM killer ended sparse-map, with 619.8 MiB of page tables and 2.875 MiB of anonymous memory"
    )


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        (BARE, {"uptime_seconds": None}),
        (LINE + "\r", {}),
        (LINE.replace("Out of memory", "Memory cgroup out of memory"), {"out_of": "cgroup"}),
        (LINE.replace("Out of memory", "Out of memory (oom_kill_allocating_task)"), {}),
        (LINE.partition(", UID")[0], {"page_table_bytes": None, "oom_score_adj": None}),
        (LINE.replace("(sparse-map)", "((sd-pam) x)"), {"comm": "(sd-pam) x"}),
        (LINE.replace("(sparse-map)", "()"), {"comm": ""}),
    ],
)
def test_other_forms_of_it(line: str, changed: dict[str, object]) -> None:
    assert [asdict(one) for one in find_kills(line)] == [asdict(KILL) | changed]


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("Out of memory: ", ""),
        LINE.replace("Out of memory", "out of memory"),
        f"he wrote: {BARE}",
        LINE.replace("312 ", "312312312312 "),
        LINE.replace("2944kB", "-2944kB"),
        LINE.replace("2944kB", "2944"),
        LINE.replace("634680kB", f"{'9' * 16}kB"),
        LINE.replace("sparse-map", "x" * 64),
        LINE + " more",
    ],
)
def test_what_is_no_such_line(line: str) -> None:
    assert find_kills(line) == ()


def test_a_log_full_of_them_is_cut() -> None:
    assert len(find_kills(f"{LINE}\n" * 1000)) == 50


@given(st.text() | st.from_regex(r"Out of memory: Killed process \d+ \(.*\) total-vm:\d+kB, .*"))
def test_whatever_a_log_says_can_be_recorded(text: str) -> None:
    for kill in find_kills(f"{text}\n{BARE}"):
        event = OomKilled(t_ns=1, of="guest", workload="", **asdict(kill))
        again = read_event(event.model_dump())
        assert again == event
