"""What of the second-level tables that a host counts is one guest's, and what policies would free of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.model.second_level_counts import TreeEffectCounts
from orchestrator.observation import NO_SECOND_LEVEL, Origin
from orchestrator.records.accel import is_emulated
from orchestrator.records.summary import SecondLevelResult
from orchestrator.units import PAGE_BYTES

_SHARED: Final = "the host counts it for all guests, and trials ran in parallel"
_OTHERS_UNKNOWN: Final = "what other guests of the host have was not read"
# A guest that runs has tables below its root, which alone is not counted (kvm_tdp_mmu_alloc_root() does not
# call tdp_account_mmu_page(), arch/x86/kvm/mmu/tdp_mmu.c).
_NONE_LEFT: Final = "the host counts no more than other guests had: these changed, or its KVM does not count"


@dataclass(frozen=True)
class GuestShare:
    """`others_bytes` are tables of other guests, to be taken off; None where they should have been read.

    `why_not` says why the host's count says nothing of the guest; empty where it does.
    """

    others_bytes: float | None
    why_not: str = ""

    @classmethod
    def of(cls, accel: str, others_bytes: float | None, *, shared: bool) -> GuestShare:
        """`shared`: guests of other trials come and go on the host."""
        why_not = NO_SECOND_LEVEL if is_emulated(accel) else _SHARED if shared else ""
        return cls(others_bytes, why_not)

    def take(self, counted: float | None, gap: str) -> tuple[float | None, str]:
        """The guest's bytes of what the host counted; or None, and why. `gap` is why nothing was counted."""
        if self.why_not:
            return None, self.why_not
        if counted is None:
            return None, gap
        if self.others_bytes is None:
            return None, _OTHERS_UNKNOWN
        own = counted - self.others_bytes
        return (own, "") if own > 0 else (None, _NONE_LEFT)


def second_level_rows(snapshot: str, effects: Mapping[str, TreeEffectCounts]) -> Iterator[SecondLevelResult]:
    """A row for each policy; `effects` are by its name."""
    for policy, effect in effects.items():
        yield SecondLevelResult(
            snapshot,
            policy,
            effect.tables_freed,
            effect.tables_freed * PAGE_BYTES,
            Origin.MODELLED.value,
            effect.tables_rebuilt_at_most,
            effect.huge_pages,
            effect.bytes_taken_at_most,
        )
