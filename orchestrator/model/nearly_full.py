"""Which ranges of 2 MiB `collapse` makes huge pages of: defaults of the lever, and of the policy."""

from __future__ import annotations

from typing import Final

from orchestrator.units import MIB

MIN_PRESENT: Final = 480
"""How many of a range's 512 pages must be there: what a huge page takes is then a sixteenth of it at most."""
MAX_GROWTH: Final = 64 * MIB
"""How many bytes that the ranges lack may be taken for them."""
