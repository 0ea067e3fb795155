"""A run folder as a run would write it, with made-up figures: marked `synthetic`, for tests only."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.actions import ACTIONS
from orchestrator.metric import COST_PHASES
from orchestrator.model.frames import KPF_ANON, KPF_BUDDY, KPF_LRU, KPF_OFFLINE, KPF_PGTABLE, KPF_SLAB
from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.observation import Observation, Origin
from orchestrator.probes import declared_series
from orchestrator.records.events import (
    Event,
    GuestKernel,
    KernelLogRead,
    SnapshotTaken,
    StepBegin,
    StepEnd,
    TrialBegin,
    TrialEnd,
    Unknown,
)
from orchestrator.records.step import Effect, Point, StepOutcome, StepResult
from orchestrator.store import RunWriter, TrialWriter
from orchestrator.store.snapshot_file import write_snapshot

MIB = 1 << 20
BLOCKS = 768
BLOCK_PAGES = 512
TABLES = 16  # last-level tables in each block that holds any
_BASE = 1 << 15  # frames below the region: 128 MiB, one Linux memory block
_LINK = 0x067

META: dict[str, object] = {
    "synthetic": True,
    "accel": "tcg",
    "second_level": "none",
    "host": {"cpu": "made up", "cores": 2, "memory_bytes": 24 << 30},
    "versions": {"kernel": "6.1.0", "qemu": "10.0.2", "libvirt": "11.3.0"},
    "git_commit": "0" * 40,
    "command_line": ["orchestrator", "run", "scenarios/synthetic.yaml"],
}


# What no workload of this run checks.
NOT_COUNTED = {f"{phase}_instructions_per_table": "no workload counted instructions" for phase in COST_PHASES}
NOT_CHECKED = ("integrity_checked_bytes", "integrity_mismatches", "integrity_stuck_threads")
NONE_ENDED = "no workload that checks contents was stopped: then it says what it found"
# Of a trial whose probes are older than what grows: OOM kills, swap, stalls.
NOT_READ = {
    headline.metric: f"no probe read {one}"
    for one in declared_series()
    for headline in one.series.headlines
    if headline.choice == "growth"
}
# What its trials have no figure of, and why.
GAPS = {
    "second_level_bytes": "no second level under TCG",
    **dict.fromkeys(NOT_CHECKED, NONE_ENDED),
    **NOT_COUNTED,
    **NOT_READ,
}

# A name that would be markup, a terminal's escape or a template, where it is not taken as text.
EVIL = "</script><script>alert(1)</script>\u202e\x1b[2J\"'`{{7*7}}&"


@dataclass(frozen=True)
class FakeArm:
    """What is made up for one arm."""

    name: str
    kernel: str
    release: str
    tables_left: int  # last-level tables in each kept block, once the memory was given up
    kept_blocks: int  # that unplug leaves
    kept_tables_only: int
    deposits_read: bool = False  # there are none


ARMS = (
    FakeArm("6.12", "debian-6.12", "6.12.57+deb13-amd64", TABLES, 213, 199, deposits_read=True),
    FakeArm("7.3-pt-reclaim", "debian-7.3", "7.3.1-amd64", 0, 211, 197),
)


def plan_json(arms: tuple[FakeArm, ...] = ARMS, repeats: int = 1, scenario: str = "hot-unplug") -> str:
    """As much of a plan as readers of run folders look at."""
    trials = [
        {
            "id": f"{arm.name}-{repeat:02d}",
            "arm": arm.name,
            "repeat": repeat,
            "order": 1,
            "seed": 7,
            "steps": [],
        }
        for repeat in range(1, repeats + 1)
        for arm in arms
    ]
    named = [{"name": arm.name, "differs": {"kernel": arm.kernel}} for arm in arms]
    return json.dumps({"format": 1, "scenario": scenario, "arms": named, "trials": trials})


def write_run(
    results: Path,
    run_id: str = "20260101-120000-synthetic",
    *,
    arms: tuple[FakeArm, ...] = ARMS,
    repeats: int = 1,
    trials: int | None = None,
    finish: str | None = "completed",
    scenario: str = "hot-unplug",
    snapshots: bool = True,
    jitter: int = 0,
    expect: Sequence[dict[str, object]] = (),
    **meta: object,
) -> Path:
    """Write a run of `arms`; only the first `trials` of it, and without an end when `finish` is None.

    Up to `jitter` blocks more stay in some trials than in others, whatever the arm.
    """
    plan = json.dumps(json.loads(plan_json(arms, repeats, scenario)) | {"expect": list(expect)})
    writer = RunWriter.create(results, run_id, plan, {**META, **meta})
    begun = [(arm, repeat) for repeat in range(1, repeats + 1) for arm in arms][:trials]
    for arm, repeat in begun:
        more = int(np.random.default_rng([repeat, *arm.name.encode()]).integers(0, jitter + 1))
        one = replace(
            arm, kept_blocks=arm.kept_blocks + more, kept_tables_only=arm.kept_tables_only + more // 2
        )
        trial_id = f"{arm.name}-{repeat:02d}"
        written = _trial_written(trial_id, one, repeat, snapshots=snapshots)
        shutil.copytree(written, writer.trial_directory(trial_id))
    if finish:
        writer.finish(finish, 0 if finish == "completed" else 3)
    return writer.directory


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _trial_written(trial_id: str, arm: FakeArm, repeat: int, *, snapshots: bool) -> Path:
    """The folder of a trial, written once in a process: dozens of runs have the same one."""
    writer = RunWriter.create(Path(_kept().name), f"run-{_trial_written.cache_info().misses}", "{}", {})
    with writer.trial(trial_id) as trial:
        write_trial(trial, arm, repeat, snapshots=snapshots)
    return writer.trial_directory(trial_id)


def write_trial(trial: TrialWriter, arm: FakeArm, repeat: int = 1, *, snapshots: bool = True) -> None:
    """All files of one trial that completed."""
    rng = np.random.default_rng(repeat)
    kernel = {"kernel_release": arm.release, "kernel_build": "#1 SMP made up", "kernel_sha256": "5" * 64}
    events: list[Event] = [
        TrialBegin(t_ns=0, arm=arm.name),
        GuestKernel(t_ns=1, **kernel),
        *(event for pair in _steps(arm) for event in pair),
        KernelLogRead(t_ns=119 * 10**9, complaints=0),
        TrialEnd(t_ns=120 * 10**9, outcome="completed"),
    ]
    trial.observe(_observations(trial.trial_id, arm, rng))
    for label, seconds in (("loaded", 51), ("after-unplug", 118)) if snapshots else ():
        write_snapshot(trial.snapshots / f"{label}.npz", snapshot(label, arm, rng))
        events.append(
            SnapshotTaken(
                t_ns=seconds * 10**9, label=label, file=f"{label}.npz", paused=True, frames_changed=0
            )
        )
    for event in sorted(events, key=lambda event: event.t_ns):
        trial.record(event)
    trial.console_log.write_text("[    0.000000] Linux version made up\n", encoding="utf-8")


def _steps(arm: FakeArm) -> Iterator[tuple[StepBegin, StepEnd]]:
    size = BLOCKS * 2 * MIB
    kept = arm.kept_blocks * 2 * MIB
    retried = 2 * 2 * MIB  # what the driver got when it tried once more
    unplug = {
        "requested_bytes": size,
        "achieved_bytes": size - kept,
        "shortfall_bytes": kept,
        "size_before_bytes": size,
        "size_after_bytes": kept,
        "later_bytes": retried,
    }
    curves: dict[str, list[Point]] = {
        "plug": [(0, 0), (0.4, size // 2), (3, size)],
        "inflate": [(0, 0), (0.2, 64 * MIB), (3, 120 * MIB)],
        "unplug": [(0, 0), (0.3, size // 4), (10, size // 2), (24, size - kept), (54, size - kept + retried)],
    }
    plug = {"requested_bytes": size, "achieved_bytes": size, "shortfall_bytes": 0}
    rows: tuple[tuple[str, str, float, float, float | None, str, dict[str, Any]], ...] = (
        ("plug", "plug 1.5 GiB", 2, 2.4, 5, "done", plug),
        (
            "start",
            "start sparse-touch",
            8,
            8.2,
            None,
            "done",
            {"ops_per_second": 5120.5, "p99_seconds": 0.0042},
        ),
        ("signal", "give the memory up", 42, 42.1, 50, "done", {}),
        ("snapshot", "snapshot loaded", 51, 51, None, "done", {}),
        (
            "inflate",
            "inflate by 128 MiB",
            52,
            52.2,
            55,
            "done",
            {"requested_bytes": 128 * MIB, "achieved_bytes": 120 * MIB},
        ),
        ("unplug", "unplug to 0 B", 60, 60.3, 84, "partial", unplug),
        ("snapshot", "snapshot after-unplug", 118, 118, None, "done", {}),
    )
    for number, (action, describe, asked, acknowledged, settled, outcome, values) in enumerate(rows):
        begin = StepBegin(t_ns=int(asked * 1e9), step=number, action=action, describe=describe)
        effect = ACTIONS[action].effect if action in ACTIONS else Effect()
        about = {"workload": "sparse-touch", "expects": ("page_table",)} if action == "start" else {}
        ended = max(settled or acknowledged, asked + curves.get(action, [(0, 0)])[-1][0])
        result = StepResult(
            StepOutcome(outcome),
            requested_ns=begin.t_ns,
            acknowledged_ns=int(acknowledged * 1e9),
            settled_ns=None if settled is None else int(settled * 1e9),
            values=values,
            curve=curves.get(action, []),
        )
        yield begin, StepEnd.of(begin, int(ended * 1e9), effect, result, about)


def _observations(trial: str, arm: FakeArm, rng: np.random.Generator) -> Iterator[Observation]:
    size, kept = BLOCKS * 2 * MIB, arm.kept_blocks * 2 * MIB
    tables_each = arm.kept_tables_only * 4096
    for second in range(120):
        t_ns = second * 10**9 + int(rng.integers(0, 10**7))

        def read(source: str, name: str, value: float, unit: str = "bytes", at: int = t_ns) -> Observation:
            return Observation(at, trial, source, name, float(value), unit)

        up, down = np.clip((second - 8) / 28, 0, 1), np.clip((second - 42) / 6, 0, 1)
        tables = tables_each * (1 + up * TABLES - down * (TABLES - arm.tables_left))
        yield read("guest_meminfo", "PageTables", tables)
        plugged = size * np.clip((second - 2) / 3, 0, 1)
        plugged -= (size - kept) * np.clip((second - 60) / 22, 0, 1)
        yield read("virtio_mem", "size", plugged // (2 * MIB) * 2 * MIB)
        yield read("virtio_mem", "requested_size", size if 2 <= second < 60 else 0)
        yield read("balloon", "actual", (1 << 30) - 120 * MIB * np.clip((second - 52) / 3, 0, 1))
        yield read("host_qemu", "VmPTE", 4.2 * MIB * (0.4 + 0.6 * up))
        yield read("host_qemu", "VmRSS", 380 * MIB + up * 900 * MIB)
        needed = 2 * MIB * (0.3 + up)
        yield Observation(
            t_ns, trial, "host_pagemap", "second_level_needed_bytes", float(needed), "bytes", Origin.PREDICTED
        )
        yield read("guest_vmstat", "nr_memmap_pages", 4096 + 6144 * plugged / size, "count")
        yield read("guest_vmstat", "nr_memmap_boot_pages", 4096, "count")
        yield read("guest_vmstat", "thp_fault_alloc", 700 + second, "count")
        yield read("guest_vmstat", "thp_fault_fallback", 20 + 10 * second, "count")
        yield read("guest_vmstat", "compact_success", 3, "count")
        if second == 60:
            yield read("guest_vmstat", "compact_fail", 3, "count")
        if second % 30 == 29:
            gap = "the guest did not answer within 2 s"
            yield Observation(t_ns, trial, "guest_process/touch:411", "VmPTE", None, "bytes", gap=gap)


def snapshot(label: str, arm: FakeArm, rng: np.random.Generator) -> Snapshot:
    """A guest whose region holds page tables in as many blocks as `arm` says."""
    region = Region("vmem0", _BASE, BLOCKS * BLOCK_PAGES, BLOCK_PAGES, BLOCKS * 2 * MIB)
    flags = np.zeros(_BASE + region.pages, dtype=np.uint64)
    flags[:_BASE] = 1 << KPF_BUDDY
    grid = flags[_BASE:].reshape(BLOCKS, BLOCK_PAGES)  # a view
    with_tables = np.sort(rng.permutation(BLOCKS)[: arm.kept_tables_only + 4])
    slab = np.setdiff1d(np.arange(BLOCKS), with_tables)[: arm.kept_blocks - len(with_tables)]
    if label == "after-unplug":
        grid[:] = 1 << KPF_OFFLINE
        grid[with_tables] = 1 << KPF_BUDDY
        grid[slab] = 1 << KPF_BUDDY
    else:
        grid[:] = 1 << KPF_BUDDY
        grid[: BLOCKS * 2 // 3, ::3] = 1 << KPF_LRU | 1 << KPF_ANON
    grid[slab, 5] = 1 << KPF_SLAB
    grid[with_tables[:4], 9] = 1 << KPF_SLAB
    leaves_each = arm.tables_left
    leaves = (_BASE + with_tables[:, None] * BLOCK_PAGES + 32 + np.arange(leaves_each)).reshape(-1)
    middles = _BASE + with_tables * BLOCK_PAGES + 16
    top = 100
    flags[leaves], flags[middles], flags[top] = 1 << KPF_PGTABLE, 1 << KPF_PGTABLE, 1 << KPF_PGTABLE
    # Tables by frame: leaves are empty, each middle one points at the leaves of its block.
    tables = {int(pfn): np.empty(0, dtype=np.uint64) for pfn in leaves}
    for index, pfn in enumerate(middles.tolist()):
        below = leaves[index * leaves_each : (index + 1) * leaves_each].astype(np.uint64)
        tables[pfn] = below << np.uint64(12) | np.uint64(_LINK)
    tables[top] = middles.astype(np.uint64) << np.uint64(12) | np.uint64(_LINK)
    pfns = sorted(tables)
    sizes = [len(tables[pfn]) for pfn in pfns]
    return Snapshot(
        label=label,
        kernel=arm.release,
        flags=flags,
        table_pfn=np.array(pfns, dtype=np.int64),
        entry_start=np.cumsum([0, *sizes], dtype=np.int64),
        entry_slot=np.concatenate([np.arange(size, dtype=np.uint16) for size in sizes]),
        entry_value=np.concatenate([tables[pfn] for pfn in pfns]),
        regions=(region,),
        online_block_bytes=128 * MIB,
        online_blocks=np.arange(len(flags) * 4096 // (128 * MIB), dtype=np.int64),
        paused=True,
        frames_changed=0,
        deposits_read=arm.deposits_read,
    )


def _raw(trial: TrialWriter, t_ns: int, name: str, **given: Any) -> None:
    """A line as no class would write it."""
    trial.record(Unknown(t_ns=t_ns, event=name, given=given))


def evil_run(results: Path) -> Path:
    """A run in which everything that comes from outside tries to be something else."""
    arm = FakeArm(EVIL, EVIL, EVIL, 0, 3, 2)
    plan = json.loads(plan_json((arm,), scenario=EVIL))
    plan["trials"][0]["id"] = "t-01"
    writer = RunWriter.create(results, "evil", json.dumps(plan), {**META, "accel": EVIL, EVIL: EVIL})
    with writer.trial("t-01") as trial:
        trial.record(TrialBegin(t_ns=0))
        trial.record(GuestKernel(t_ns=0, kernel_release=EVIL))
        trial.record(StepBegin(t_ns=1, step=1, action=EVIL, describe=EVIL))
        _raw(trial, 2, "step.end", step=1, action=EVIL, outcome=EVIL, values={EVIL: EVIL})
        trial.observe(
            [
                Observation(1, "t-01", "guest_meminfo", "PageTables", 4096.0, "bytes"),
                Observation(2, "t-01", f"guest_process/{EVIL}", EVIL, None, EVIL, gap=EVIL),
            ]
        )
        trial.record(SnapshotTaken(t_ns=3, label=EVIL, file=EVIL))
        begun = {"step": 2, "action": "start", "workload": EVIL}
        _raw(trial, 4, "step.end", **begun, outcome="done", expects=[EVIL, {EVIL: EVIL}, "slab"])
        trial.record(StepBegin(t_ns=5, step=3, action="unplug", describe=EVIL))
        junk = [[0, 0], [EVIL, 1], [1, None], [1, 10**400], [True, 1], [-1, 1], [1], EVIL, [2, 4096]]
        moves = {"mechanism": "virtio-mem", "direction": "take"}
        said = {"outcome": "partial", "curve": junk, "values": {"requested_bytes": 8192}}
        _raw(
            trial, 6, "step.end", step=3, action="unplug", requested_ns=5, acknowledged_ns=6, **moves, **said
        )
        rng = np.random.default_rng(1)
        write_snapshot(trial.snapshots / "a.npz", snapshot("after-unplug", ARMS[0], rng))
        trial.record(SnapshotTaken(t_ns=7, label=EVIL, file="a.npz"))
        trial.record(TrialEnd(t_ns=8, outcome=EVIL, error=EVIL * 500, hint=EVIL))
        trial.console_log.write_bytes(b"\xff\xfe\x00" + EVIL.encode() * 2000)
    writer.finish("failed", 3)
    return writer.directory
