"""Evidence in documents of models: `model overcommit`, the tables of synthetic guests, and `model tlb`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.claims.committed import Committed
from orchestrator.claims.evidence import Sampled, Source
from orchestrator.claims.figure import Sample, Spread
from orchestrator.errors import BadInputError
from orchestrator.observation import Origin

_ENDS: Final = ("low", "typical", "high")
_REFERENCES: Final = "two_levels.references_per_access.typical"


@dataclass(frozen=True)
class SnapshotsOf:
    """Snapshots of one label, of the trials of an arm of a run."""

    run: str
    arm: str
    snapshot: str


TLB_RUN: Final = SnapshotsOf("pmd", "linux-6.12", "loaded")
"""Whose huge pages `model tlb` is asked about."""


@dataclass(frozen=True)
class OvercommitFigure(Sampled):
    """What `model overcommit` said of a policy: `killed`, `fit`, `table_bytes_peak`, or `added.mean` and
    `added.p99` in seconds. `action` is empty where the file has the policy once."""

    file: str
    policy: str
    action: str
    key: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source(f"overcommit/{self.file}"),)

    def sample(self, committed: Committed) -> Sample:
        document = committed.document(f"overcommit/{self.file}")
        rows = [
            one
            for one in document["answers"]
            if one["policy"] == self.policy and self.action in {"", one["action"]}
        ]
        if len(rows) != 1:
            what = f"policy {self.policy}" + (f" with {self.action}" if self.action else "")
            raise BadInputError(f"results/reference/overcommit/{self.file}.json has {what} {len(rows)} times")
        found = _at(rows[0], self.key)
        return Sample({end: float(found[end]) for end in _ENDS}, of_boots=False)


@dataclass(frozen=True)
class GuestBytes(Sampled):
    """Bytes of the page tables of a synthetic guest: a key of guests.json."""

    guest: str
    key: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source("guests", guest=self.guest),)

    def sample(self, committed: Committed) -> Sample:
        found = _at(committed.document("guests"), f"{self.guest}.{self.key}")
        return Sample({"": float(found)}, of_boots=False)


@dataclass(frozen=True)
class TlbWithoutHugePages(Sampled):
    """References of page walks for each access to memory without huge pages, as a multiple of those with
    nothing but huge pages at both levels: of the default CPU of `model tlb`, and the range over all."""

    access: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(
            Source("tlb", asked=f"--memory 64GiB --host-huge {host} --huge {host} --access {self.access}")
            for host in (0, 1)
        )

    def sample(self, committed: Committed) -> Sample:
        found = {
            cpu: _of_share(patterns[self.access], 0) / _of_share(patterns[self.access], 1)
            for cpu, patterns in committed.document("tlb")["cpus"].items()
        }
        typical = next(iter(found.values()))
        ends = {"low": min(found.values()), "typical": typical, "high": max(found.values())}
        return Sample(ends, of_boots=False, ends=Spread.CPUS)


@dataclass(frozen=True)
class TlbAfterPolicy(Sampled):
    """Such references to a guest's own memory with the huge pages that it could have after a policy, as a
    share of those with what it could have as it was: boot by boot, of TLB_RUN."""

    access: str
    policy: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        trial = f"--trial {TLB_RUN.arm}-01 --snapshot {TLB_RUN.snapshot}"  # of the boots of that arm
        return (
            Source("tlb", asked=f"results/reference/{TLB_RUN.run} {trial} --access {self.access}"),
            Source(TLB_RUN.run, TLB_RUN.arm),
        )

    def sample(self, committed: Committed) -> Sample:
        run = committed.document("tlb")["run"]
        if SnapshotsOf(run["run"], run["arm"], run["snapshot"]) != TLB_RUN:
            raise BadInputError("tlb.json is of another run", hint="python tests/unit/modelled.py tlb")
        trials = run["trials"][self.access]

        def share(trial: Any) -> float | None:
            rows = trials.get(trial.trial)
            if rows is None:
                return None
            after, before = (float(_at(rows[name], _REFERENCES)) for name in (self.policy, "free or movable"))
            return after / before

        return committed.run(run["run"]).by_boot(run["arm"], share)


def _of_share(rows: list[dict[str, Any]], share: float) -> float:
    """References for each access where guest and host have that share in huge pages."""
    (row,) = [one for one in rows if (one["guest_huge"], one["host_huge"]) == (share, share)]
    return float(_at(row, _REFERENCES))


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise BadInputError(
                f"a document of the model has no {path}", hint="python tests/unit/modelled.py"
            )
        value = value[key]
    return value
