"""What a replay counts: events, and never their cost. Costs have units and ranges of their own."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ReplayCounts:
    """Events of one replay; each is a number of last-level tables or of touches of one.

    touches = hits + cold_misses + refaults, and refaults = rebuilt + decompressed + swapped_in: what
    brings a table back follows from what was done with it. A touch of a migrated table is a hit: a walk
    reaches it where it lies, only slower.
    """

    touches: int = 0
    hits: int = 0  # met their table, wherever it lies
    remote_hits: int = 0  # of these, met it on the node it was migrated to
    cold_misses: int = 0  # made a table that was never there before: no policy can spare them
    rebuilt: int = 0  # made a table again: it had been dropped, or freed because nothing was in it
    decompressed: int = 0
    swapped_in: int = 0
    retries: int = 0  # met a table while it was being evicted, and came again; no event of its own
    freed: int = 0  # by reference count: nothing was in them, or nothing but the zero page
    dropped: int = 0  # with valid entries, as second-level tables can be
    migrated: int = 0
    compressed: int = 0
    swapped_out: int = 0
    peak_tables: int = 0  # most tables that were in the budgeted memory at once
    end_tables: int = 0
    upper_freed: int = 0  # PMD tables freed because nothing was below them any more
    upper_tables: int = 0  # PMD tables at the end
    not_moved: int = 0  # touches that would have had a table migrated, had another node had room
    over_budget: int = 0  # touches that had a table come although the budget was full

    @property
    def refaults(self) -> int:
        """Touches of a table that a policy had evicted."""
        return self.rebuilt + self.decompressed + self.swapped_in

    @property
    def misses(self) -> int:
        """Touches that did not meet their table, as cache simulators count them."""
        return self.cold_misses + self.refaults

    @property
    def evicted(self) -> int:
        """Tables with valid entries that were evicted, by whatever action."""
        return self.dropped + self.migrated + self.compressed + self.swapped_out

    def as_dict(self) -> dict[str, int]:
        """All fields and what is derived from them, by name."""
        return {**asdict(self), "refaults": self.refaults, "misses": self.misses, "evicted": self.evicted}
