"""The names of what runs guests, as plans, meta.json, events and summaries have them."""

from __future__ import annotations

from typing import Final

KVM: Final = "kvm"
TCG: Final = "tcg"
ICOUNT: Final = "tcg-icount"
"""TCG, and the guest's clock counts instructions (QEMU's `-icount`)."""

NO_TIMES: Final = "the guest's clock counts instructions: it has no times"
"""Why a time or a rate is missing under ICOUNT."""


def is_emulated(accel: str) -> bool:
    """Whether it has no second level of translation, and no time or rate of a real machine."""
    return accel in {TCG, ICOUNT}
