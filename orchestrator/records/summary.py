"""One row of summary.csv, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = int | float | str


@dataclass(frozen=True)
class PolicyResult:
    """What one policy would have done to the guest of one snapshot. Never measured."""

    snapshot: str
    policy: str
    tables_freed: int
    bytes_freed: int
    tables_to_move: int
    blocks_freed: int | None  # None: the guest has no resizable region
    blocks_freed_if_moved: int | None  # if `tables_to_move` were moved as well: an upper bound
    block_bytes: int | None
    origin: str  # "modelled" or "predicted"
    huge_freeable: int | None = (
        None  # ranges of 2 MiB without anything that cannot move, tables moved as well
    )


@dataclass(frozen=True)
class SecondLevelResult:
    """What one policy would have freed of KVM's tables in one snapshot of a host. Never measured.

    `tables_rebuilt_at_most` of these map something: faults may make them anew, and none of the others for
    memory that is mapped then. `huge_pages` are ranges of 2 MiB that become some, which takes no more than
    `bytes_taken_at_most`. All three are None in runs of older versions, which did not ask.
    """

    snapshot: str
    policy: str
    tables_freed: int
    bytes_freed: int
    origin: str  # "modelled"
    tables_rebuilt_at_most: int | None = None
    huge_pages: int | None = None
    bytes_taken_at_most: int | None = None


@dataclass(frozen=True)
class SnapshotResult:
    """What one snapshot says of the blocks that were plugged when it was taken, over all regions; None where
    the guest has no region that memory can be unplugged from.

    `expected` names the classes as which the workloads that ran are to be found; `blocks_expected` counts
    blocks with a frame of one of them, and blocks that only struct pages of such memory hold. `after` is the
    last action that took memory since workloads were started or stopped, empty if there was none.
    """

    snapshot: str
    frames_changed: int
    stopped_seconds: float | None
    injected: str
    expected: str
    after: str
    block_bytes: int | None
    blocks_plugged: int | None
    blocks_pinned: int | None
    blocks_pinned_by_several: int | None
    blocks_pinned_by_memmap_only: int | None
    blocks_no_migration_target: int | None
    blocks_unexplained: int | None
    blocks_expected: int | None
    huge_ranges: int
    huge_free: int
    huge_freeable: int
    of: str = "guest"  # or "host", where that is a guest of ours
    second_level_tables: int | None = None
    """KVM's tables in a host; None where they were not looked for. SecondLevelResult: what policies say."""
    page_tables_deposited: int | None = None
    """Page tables that are kept for huge pages of anonymous memory; None where they were not read."""


@dataclass(frozen=True)
class BlameResult:
    """One class of frames (or one kind of page table, then `table` says which) in plugged blocks."""

    snapshot: str
    region: str
    frame_class: str
    table: str
    frames: int
    blocks: int
    sole_blocker: int
    freeable: int | None  # blocks that would be free without the class; None for a kind of page table
    attributed: int | None  # blocks attributed to it; None for a kind of page table


@dataclass(frozen=True)
class Moment:
    """What was read at a moment with a name, `seconds` after the trial began.

    `readings` are by the columns that series have for moments (`Series.moment`), each in the unit and of the
    origin of its series; None where nothing was read, which a MomentGap explains.
    """

    moment: str
    seconds: float
    readings: Mapping[str, float | None]


@dataclass(frozen=True)
class MomentGap:
    """Why a reading of a Moment is missing: `reading` is its column."""

    moment: str
    reading: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """Something that must not be: a page with other contents than were written, a line of a kernel's log.

    `kind` is `mismatch`, `fault`, `stuck`, `kernel-log` or `stall`; `by` the workload, or whose kernel it is.
    The last three are hexadecimal, and empty where there is no such thing.
    """

    kind: str
    by: str
    seconds: float
    text: str
    address: str = ""
    expected: str = ""
    found: str = ""


@dataclass(frozen=True)
class KilledProcess:
    """A process that an OOM killer ended, as it was then: of the guest, or of its host.

    `workload` is the one that it belonged to, empty for others; `out_of` whose memory had run out: `memory`,
    the whole machine's, or `cgroup`.
    """

    of: str
    workload: str
    comm: str
    pid: int
    out_of: str
    uptime_seconds: float | None
    total_vm_bytes: int | None
    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    page_table_bytes: int | None
    oom_score_adj: int | None


def boot_name(trial: str, state: str, host: str) -> str:
    """What the boot of a trial is called: a state of the same key that another host saved is another boot."""
    if not state:
        return f"own boot of {trial}"
    return f"{state} of {host}" if host else state


@dataclass(frozen=True)
class TrialSummary:
    """One row of summary.csv. Every name in METRICS is a key of `metrics` or of `gaps`.

    `kernel_release` is what `uname -r` says in the guest, `kernel_build` what `uname -v` does, and
    `kernel_sha256` the hash of the file that was booted: two builds may have one release. All are empty where
    a run of an older version does not say. `left_out` says why the trial is in no average and no comparison;
    empty for one that counts.
    """

    run: str
    trial: str
    arm: str
    repeat: int
    differs: Mapping[str, str]
    kernel_release: str
    outcome: str
    metrics: Mapping[str, Value]
    gaps: Mapping[str, str]
    tables_snapshot: str = ""  # label of the snapshot that guest_page_tables_* are counted in
    blocks_snapshot: str = ""  # label of the snapshot that blocks_pinned* are counted in
    policies: tuple[PolicyResult, ...] = ()
    snapshots: tuple[SnapshotResult, ...] = ()
    blame: tuple[BlameResult, ...] = ()
    start: str = ""  # "warm" or "cold"; empty where the trial never had a guest
    state: str = ""  # key of the saved state that it began with, if warm
    left_out: str = ""
    moments: tuple[Moment, ...] = ()
    moment_gaps: tuple[MomentGap, ...] = ()
    kernel_build: str = ""
    kernel_sha256: str = ""
    findings: tuple[Finding, ...] = ()
    second_level: tuple[SecondLevelResult, ...] = ()
    oom_kills: tuple[KilledProcess, ...] = ()
    host: str = ""  # name of the host that it ran on; empty where a run of an older version does not say

    @property
    def boot(self) -> str:
        """Names the boot that it is a trial of: trials of one saved boot of one host have one."""
        return boot_name(self.trial, self.state, self.host)

    @property
    def after_unplug(self) -> SnapshotResult | None:
        """The snapshot that blocks_pinned* are counted in."""
        found = (one for one in self.snapshots if one.snapshot == self.blocks_snapshot)
        return next(found, None)

    def number(self, metric: str) -> float | None:
        """A metric, if it is there and is a number."""
        value = self.metrics.get(metric)
        return value if isinstance(value, int | float) else None
