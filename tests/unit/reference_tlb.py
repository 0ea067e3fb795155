"""Address translation as slowly as one would write it down: dictionaries, and a walk that visits every entry.

Shares nothing with orchestrator/model/tlb_walk.py but the description of a CPU.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from orchestrator.model.tlb_cpu import CacheShape, Tlb, TlbCpu, WalkCaches


class Lru:
    """Sets of the least recently used; None is a cache that is not there."""

    def __init__(self, shape: CacheShape | None) -> None:
        self.ways = shape.ways if shape else 0
        self.sets: list[OrderedDict[Hashable, None]] = [
            OrderedDict() for _ in range(shape.entries // shape.ways if shape else 1)
        ]

    def look(self, number: int, what: Hashable) -> bool:
        """Whether it is there; it is from now on."""
        if not self.ways:
            return False
        place = self.sets[number % len(self.sets)]
        found = what in place
        place[what] = None
        place.move_to_end(what)
        if len(place) > self.ways:
            place.popitem(last=False)
        return found


def by_size(tlb: Tlb) -> tuple[Lru, Lru]:
    if tlb.both_sizes:
        both = Lru(tlb.both_sizes)
        return both, both
    return Lru(tlb.base), Lru(tlb.huge)


def by_level(caches: WalkCaches) -> dict[int, Lru]:
    if caches.all_levels:
        return dict.fromkeys(range(2, 6), Lru(caches.all_levels))
    return {
        level: Lru(shape)
        for level, shape in enumerate((caches.pmd, caches.pud, caches.p4d, caches.pgd), start=2)
    }


@dataclass
class Translator:
    """`huge` and `host_huge` say whether an address has a leaf of 2 MiB; `frame_of` where a table is."""

    cpu: TlbCpu
    levels: int
    two_levels: bool
    huge: Callable[[int], bool]
    host_huge: Callable[[int], bool]
    frame_of: Callable[[int, int], int]
    found: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.l1, self.l2, self.nested = map(by_size, (self.cpu.l1, self.cpu.l2, self.cpu.nested_tlb))
        self.guest, self.host = map(by_level, (self.cpu.walk, self.cpu.nested_walk))

    def access(self, page: int) -> None:
        self.found["accesses"] += 1
        huge = self.huge(page) and (not self.two_levels or self.host_huge(page))
        number = page // 512 if huge else page
        if self.l1[huge].look(number, (huge, number)):
            return
        self.found["l1_misses"] += 1
        if self.l2[huge].look(number, (huge, number)):
            return
        self.found["walks"] += 1
        leaf = 2 if self.huge(page) else 1
        entries, known = self.entries(self.guest, page, leaf)
        for level in entries:
            if self.two_levels and not (known and level == entries[0]):
                self.found["host"] += self.nested_references(self.frame_of(level, page))
            self.found["guest"] += 1
        if self.two_levels:
            self.found["host"] += self.nested_references(page)

    def entries(self, caches: dict[int, Lru], page: int, leaf: int) -> tuple[list[int], bool]:
        """Levels of the entries that must be read, from the top; and whether a cache led to the first one."""
        read = [leaf]
        for level in range(leaf + 1, self.levels + 1):
            number = page // 512 ** (level - 1)
            if caches[level].look(number, (level, number)):
                return read[::-1], True
            read.append(level)
        return read[::-1], False

    def nested_references(self, frame: int) -> int:
        huge = self.host_huge(frame)
        number = frame // 512 if huge else frame
        if self.nested[huge].look(number, (huge, number)):
            return 0
        return len(self.entries(self.host, frame, 2 if huge else 1)[0])


def counted(translator: Translator, pages: Sequence[int], warm_up: int) -> tuple[int, ...]:
    """As `tlb.TlbCounts`, of the accesses behind the first `warm_up`."""
    for number, page in enumerate(pages):
        if number == warm_up:
            translator.found.clear()
        translator.access(page)
    return tuple(translator.found[key] for key in ("accesses", "l1_misses", "walks", "guest", "host"))
