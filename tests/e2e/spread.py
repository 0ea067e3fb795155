"""A run of guests on one machine and on several hosts: what must be the same wherever a trial ran."""

from __future__ import annotations

import csv
from pathlib import Path

SCENARIO = """\
version: 1
name: guests
guest: debian-13
kernel: "6.12"
accel: tcg
machine: {memory: 512MiB, vcpus: 1, virtio_mem: {size: 256MiB}}
arms: {never: {setup: {thp: never}}, madvise: {setup: {thp: madvise}}, always: {setup: {thp: always}}}
repeats: 4
boots: 1
steps:
  - plug: {to: 256MiB}
  - exec: {argv: [cat, /sys/kernel/mm/transparent_hugepage/enabled]}
  - inflate: {by: 64MiB}
  - unplug: {to: 0B, settle: 2s}
"""
TRIALS = 12
# What the scenario says, whatever a boot does.
_SAID = ("trial", "arm", "repeat", "outcome", "unplug_requested_bytes", "balloon_achieved_bytes")


def counts(run: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns of a run's summary.csv, and of each trial what must be the same."""
    with (run / "summary.csv").open() as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        rows = sorted(tuple(row[name] for name in _SAID) for row in reader)
    return [name for name in columns if name != "host"], rows
