"""Run folders as they are under TCG, of guests of which some things were asked and others not.

Every value that is measured in them is above 0, so that any 0 in what is made of them was not measured. What
the host's side reads is what the probes make of a host without KVM.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes import MACHINE, FakeDomain, host_with
from synthetic_run import META, MIB, plan_json

from orchestrator.actions import ACTIONS
from orchestrator.observation import Observation, Origin, Reading
from orchestrator.probes import PROBES, HostView
from orchestrator.records.events import GuestKernel, Mark, StepBegin, StepEnd, TrialBegin, TrialEnd
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.store import RunWriter, TrialWriter

S = 10**9
ARMS = ("old", "new")
MOMENTS = ("booted", "loaded")
_QEMU = 411
# A step of each kind of which a headline metric is made, and the values that it leaves.
STEPS: Mapping[str, Mapping[str, float]] = {
    "inflate": {"requested_bytes": 256 * MIB, "achieved_bytes": 250 * MIB},
    "unplug": {
        "requested_bytes": 512 * MIB,
        "achieved_bytes": 320 * MIB,
        "shortfall_bytes": 192 * MIB,
        "size_before_bytes": 512 * MIB,
        "size_after_bytes": 192 * MIB,
    },
    "start": {"ops_per_second": 512.5, "p99_seconds": 0.25},
}


def host_files(counted_kib: int) -> dict[str, str]:
    """A host whose kernel counts so much for other guests, and has KVM's counters of one of them."""
    others = "PageTables: 71 kB\nMemAvailable: 6 kB\nMemFree: 5 kB\n"
    return {
        "/proc/meminfo": f"SecPageTables: {counted_kib} kB\n{others}",
        "/proc/vmstat": "nr_iommu_pages 0\n",
        f"/sys/kernel/debug/kvm/{_QEMU + 1}-12/pages_4k": "5120\n",
    }


def host_readings(counted_kib: int, accel: str = "tcg", pid: int = _QEMU) -> Iterator[tuple[str, Reading]]:
    """What the probes of KVM read there, with their names."""
    domain = FakeDomain(pid=pid, shell=host_with(host_files(counted_kib)))
    view = HostView(domain, MACHINE, accel)
    for name in ("host_meminfo", "host_kvm"):
        yield from ((name, reading) for reading in PROBES[name]().from_host(view))


def unmeasurable() -> set[tuple[str, str]]:
    """(source, name) of readings that there are of a guest under KVM, and of one under TCG there are not."""
    kvm, tcg = (
        {(source, reading.name) for source, reading in found if reading.value is not None}
        for found in (host_readings(2088, "kvm", _QEMU + 1), host_readings(2088, "tcg", _QEMU))
    )
    return kvm - tcg


def write_tcg_run(
    results: Path, asked: Sequence[str] = (), *, counted_kib: int = 0, expect: Sequence[Any] = ()
) -> Path:
    """A run of two arms with one trial each, and the steps of STEPS that are `asked` for."""
    results.mkdir(parents=True, exist_ok=True)
    plan = json.loads(plan_json((), scenario="tcg"))
    plan["arms"] = [{"name": name, "differs": {"kernel": name}} for name in ARMS]
    plan["trials"] = [{"id": f"{name}-01", "arm": name, "repeat": 1, "seed": 7, "steps": []} for name in ARMS]
    meta = {**META, "started_at": "2026-01-31T12:34:56+00:00"}
    writer = RunWriter.create(results, "tcg-1", json.dumps(plan | {"expect": list(expect)}), meta)
    for number, name in enumerate(ARMS, start=1):
        with writer.trial(f"{name}-01") as trial:
            _write(trial, asked, number, counted_kib)
    writer.finish("completed", 0)
    return writer.directory


def _write(trial: TrialWriter, asked: Sequence[str], number: int, counted_kib: int) -> None:
    trial.record(TrialBegin(t_ns=1, accel="tcg"))
    release = f"6.1{number}.5-amd64"
    trial.record(
        GuestKernel(t_ns=S, kernel_release=release, kernel_build="#1 SMP Debian", kernel_sha256="ab12")
    )
    for moment, label in enumerate(MOMENTS, start=1):
        trial.observe(_readings(trial.trial_id, moment * 10 * S, number, moment, counted_kib * moment))
        trial.record(Mark(t_ns=moment * 10 * S + 1, label=label))
    for place, action in enumerate(asked, start=4):
        t_ns = place * 10 * S
        begin = StepBegin(t_ns=t_ns, step=place, action=action, describe=f"{action} something")
        trial.record(begin)
        values = {key: value * (1 + number / 8) for key, value in STEPS[action].items()}
        result = StepResult(
            StepOutcome.PARTIAL,
            requested_ns=t_ns,
            acknowledged_ns=t_ns + S,
            settled_ns=t_ns + (1 + number) * S,
            values=values,
        )
        trial.record(StepEnd.of(begin, t_ns + 5 * S, ACTIONS[action].effect, result, {}))
    trial.record(TrialEnd(t_ns=99 * S, outcome="completed", error="", hint=""))
    trial.console_log.write_text("[    0.000000] Linux version made up\n", encoding="utf-8")


def _readings(trial: str, t_ns: int, number: int, moment: int, counted_kib: int) -> Iterator[Observation]:
    factor = number * moment
    yield Observation(1, trial, "host_meminfo/bare", "second_level_bytes", counted_kib * 1024.0, "bytes")
    for source, name, value in (
        ("guest_meminfo", "PageTables", 5.5 * MIB),
        ("guest_vmstat", "nr_memmap_pages", 4096),
        ("guest_vmstat", "nr_memmap_boot_pages", 8192),
        ("host_qemu", "VmPTE", 1.5 * MIB),
        ("host_qemu", "VmRSS", 640.5 * MIB),
        ("host_pagemap", "present_bytes", 512.5 * MIB),
        ("host_pagemap", "small_ranges", 111),
        ("host_pagemap", "huge_ranges", 33),
        ("balloon", "actual", 768.5 * MIB),
    ):
        yield Observation(t_ns, trial, source, name, float(value * factor), "bytes")
    needed = Observation(
        t_ns,
        trial,
        "host_pagemap",
        "second_level_needed_bytes",
        1.25 * MIB * factor,
        "bytes",
        Origin.PREDICTED,
    )
    yield needed
    for source, one in host_readings(counted_kib):
        yield from PROBES[source].observe(source, t_ns, trial, [one])
