"""What `model tlb` says that claims are judged by, as results/reference/tlb.json has it.

Of memory of the size of a server's guest with and without huge pages, and of the trials of a run: of each
the memory of its own guest, with the huge pages that it could have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from orchestrator.analysis.huge_supply import FREE_OR_MOVABLE, supplies_of
from orchestrator.claims.of_models import TLB_RUN
from orchestrator.errors import BadInputError
from orchestrator.model.tlb import ASSUMPTIONS, Load, MappedMemory, tlb_answer
from orchestrator.model.tlb_access import access_pattern
from orchestrator.model.tlb_cpu import shipped_cpu
from orchestrator.store import open_run
from orchestrator.summary import load
from orchestrator.units import GIB, PMD_BYTES

MEMORY_BYTES: Final = 64 * GIB
CPUS: Final = ("skylake", "skylake-small-caches", "amd-16h")
"""The first is the typical one, and the one of the trials."""
SHARES: Final = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
"""Of memory in huge pages of the guest, and of the host."""
ACCESSES: Final = 200_000
WARM_UP: Final = 100_000
SEEDS: Final = 2


def tlb_document(
    folder: Path, accesses: Iterable[str], of_trials: Iterable[str], policies: Iterable[str]
) -> dict[str, Any]:
    """`folder` has the run TLB_RUN; `accesses` are patterns for made-up memory, `of_trials` those for the
    trials' own, and `policies` what could free theirs. Raises BadInputError where there is no such run."""
    rows = [FREE_OR_MOVABLE, *policies]
    return {
        "memory_bytes": MEMORY_BYTES,
        "accesses": ACCESSES,
        "warm_up": WARM_UP,
        "seeds": SEEDS,
        "assumptions": list(ASSUMPTIONS),
        "cpus": {cpu: {access: tlb_rows(cpu, access) for access in accesses} for cpu in CPUS},
        "run": {
            "run": TLB_RUN.run,
            "arm": TLB_RUN.arm,
            "snapshot": TLB_RUN.snapshot,
            "cpu": CPUS[0],
            "host_huge": 1.0,
            "trials": {
                access: {trial: tlb_of_trial(folder, trial, access, rows) for trial in tlb_trials(folder)}
                for access in of_trials
            },
        },
    }


def tlb_rows(cpu: str, access: str) -> list[dict[str, Any]]:
    """MEMORY_BYTES with each of SHARES."""
    return [
        {
            "guest_huge": guest,
            "host_huge": host,
            **_answer(cpu, access, MappedMemory(MEMORY_BYTES, guest, host)),
        }
        for guest, host in SHARES
    ]


def tlb_trials(folder: Path) -> list[str]:
    """Those of the run whose supply is looked at."""
    run = open_run(folder / TLB_RUN.run)
    return [one.trial for one in load(run) if one.arm == TLB_RUN.arm and not one.left_out]


def tlb_of_trial(folder: Path, trial: str, access: str, rows: Sequence[str]) -> dict[str, Any]:
    """One trial's supplies that `rows` name, with memory that the host backs by huge pages."""
    supplies = supplies_of(str(folder / TLB_RUN.run), folder, trial, TLB_RUN.snapshot)
    found = {one.what: one.share for one in supplies.supplies}
    if not supplies.huge_ranges or found.keys() < set(rows):
        raise BadInputError(f"snapshot {supplies.snapshot} of {trial} does not have {', '.join(rows)}")
    size = supplies.huge_ranges * PMD_BYTES
    return {
        what: {
            "share": found[what],
            **_answer(CPUS[0], access, MappedMemory(size, found[what], host_huge=1.0)),
        }
        for what in rows
    }


def _answer(cpu: str, access: str, memory: MappedMemory) -> dict[str, Any]:
    found = shipped_cpu(cpu)
    if not found:
        raise BadInputError(f"no CPU {cpu!r} is shipped")
    return asdict(tlb_answer(found, Load(access_pattern(access, {}), ACCESSES, WARM_UP), memory, SEEDS))
