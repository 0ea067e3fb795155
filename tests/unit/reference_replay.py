"""The replay again, slowly: plain Python, a dict of tables, a search for each victim.

It shares no code with orchestrator.model.replay, and says in words what that does in bits. A table has a
place and a content: events set the content wherever the table is, policies change the place alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from orchestrator.model.counts import ReplayCounts

UNMAP, ZERO, TOUCH = 0, 1, 2
NEVER, HERE, GONE, REMOTE, COMPRESSED, SWAPPED = "never", "here", "gone", "remote", "compressed", "swapped"
GOES_TO = {"drop": GONE, "migrate": REMOTE, "compress": COMPRESSED, "swap": SWAPPED}
TAKEN_AS = {"drop": "dropped", "migrate": "migrated", "compress": "compressed", "swap": "swapped_out"}
CAME_AS = {NEVER: "cold_misses", GONE: "rebuilt", COMPRESSED: "decompressed", SWAPPED: "swapped_in"}


@dataclass
class Table:
    """`came`, `touched`: index of the event; `touches` since it came; `frozen_from`: since when it is."""

    place: str = NEVER
    content: int = UNMAP
    came: int = -1
    touched: int = -1
    touches: int = 0
    frozen_from: int | None = None


Tables = dict[int, Table]


class Keeper:
    """A policy: is told who comes, is touched and leaves, and names who goes. This one names nobody."""

    def came(self, which: int) -> None: ...

    def met(self, which: int) -> None: ...

    def left(self, which: int) -> None: ...

    def victim(self, here: Tables, now: int) -> int | None:
        return None


class Fifo(Keeper):
    def victim(self, here: Tables, now: int) -> int | None:
        return min(here, key=lambda which: here[which].came)


class ZeroPage(Keeper):
    def victim(self, here: Tables, now: int) -> int | None:
        zero = [which for which, table in here.items() if table.content == ZERO]
        return min(zero, key=lambda which: here[which].came, default=None)


class Lru(Keeper):
    def victim(self, here: Tables, now: int) -> int | None:
        return min(here, key=lambda which: here[which].touched)


class Frequency(Keeper):
    def victim(self, here: Tables, now: int) -> int | None:
        return min(here, key=lambda which: (min(here[which].touches, 255), here[which].touched))


class Belady(Keeper):
    def __init__(self, events: Sequence[tuple[int, int]]) -> None:
        self.events = events

    def victim(self, here: Tables, now: int) -> int | None:
        """The one touched again last; of those that are not, the one touched last."""

        def next_use(which: int) -> tuple[bool, int]:
            for at in range(now, len(self.events)):
                if self.events[at][0] == which:
                    if self.events[at][1] == UNMAP:
                        break
                    return False, at
            return True, here[which].touched

        return max(here, key=next_use)


class Clock(Keeper):
    def __init__(self) -> None:
        self.ring: list[int] = []
        self.accessed: set[int] = set()

    def came(self, which: int) -> None:
        self.ring.append(which)
        self.accessed.discard(which)

    def met(self, which: int) -> None:
        self.accessed.add(which)

    def left(self, which: int) -> None:
        self.ring.remove(which)

    def victim(self, here: Tables, now: int) -> int | None:
        while self.ring[0] in self.accessed:
            self.accessed.remove(self.ring[0])
            self.ring.append(self.ring.pop(0))
        return self.ring[0]


class PressureRandom(Keeper):
    """By xorshift64* (Vigna 2016), whose upper half times the number of tables is the place of the victim."""

    def __init__(self, seed: int) -> None:
        self.word = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) | 1
        self.listed: list[int] = []

    def came(self, which: int) -> None:
        self.listed.append(which)

    def left(self, which: int) -> None:
        last = self.listed.pop()
        if last != which:
            self.listed[self.listed.index(which)] = last

    def victim(self, here: Tables, now: int) -> int | None:
        mask = 2**64 - 1
        self.word ^= self.word >> 12
        self.word ^= self.word << 25 & mask
        self.word ^= self.word >> 27
        high = (self.word * 0x2545F4914F6CDD1D & mask) >> 32
        return self.listed[high * len(self.listed) >> 32]


class Generations(Keeper):
    """Lists from the oldest to the youngest; `sizes` has how many there were after each change."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = [[], [], [], []]
        self.accessed: set[int] = set()
        self.sizes: Counter[int] = Counter()

    def came(self, which: int) -> None:
        self.lists[-1].append(which)

    def met(self, which: int) -> None:
        self.accessed.add(which)

    def left(self, which: int) -> None:
        for one in self.lists:
            if which in one:
                one.remove(which)
        self.accessed.discard(which)

    def walk(self) -> None:
        young = [which for one in self.lists for which in one if which in self.accessed]
        self.lists = [[which for which in one if which not in self.accessed] for one in self.lists]
        self.lists.append(young)
        self.accessed.clear()

    def victim(self, here: Tables, now: int) -> int | None:
        while True:
            self.sizes[len(self.lists)] += 1
            if len(self.lists) <= 3:
                self.walk()
            elif not self.lists[0]:
                self.lists.pop(0)
            elif self.lists[0][0] in self.accessed:
                self.accessed.remove(self.lists[0][0])
                self.lists[-1].append(self.lists[0].pop(0))
            else:
                return self.lists[0][0]


def keeper_of(policy: str, events: Sequence[tuple[int, int]], seed: int) -> Keeper:
    """A fresh policy by its name."""
    if policy == "belady":
        return Belady(events)
    if policy == "pressure_random":
        return PressureRandom(seed)
    return {
        "clock": Clock,
        "fifo": Fifo,
        "frequency": Frequency,
        "generations": Generations,
        "lru": Lru,
        "zero_page": ZeroPage,
    }.get(policy, Keeper)()


class Reference:
    """One replay under way."""

    def __init__(
        self,
        events: list[tuple[int, int]],
        policy: str,
        budget: int,
        *,
        action: str,
        seed: int,
        freeze: int,
        room: int | None,
    ) -> None:
        self.policy, self.budget, self.action = policy, budget, action
        self.freeze, self.room = freeze, room
        self.evicts_in_use = policy not in {"none", "empty", "empty_all_levels", "zero_page"}
        self.keeper = keeper_of(policy, events, seed)
        self.tables: Tables = {}
        self.upper: set[int] = set()
        self.count: Counter[str] = Counter()

    def at(self, *places: str) -> Tables:
        return {which: table for which, table in self.tables.items() if table.place in places}

    def happens(self, now: int, which: int, kind: int) -> None:
        table = self.tables.setdefault(which, Table())
        if kind == UNMAP:
            table.content = UNMAP
            self.unmap(which, table)
        else:
            table.content = max(table.content, kind)
            self.count["touches"] += 1
            if table.place == HERE:
                self.keeper.met(which)
                table.touched, table.touches = now, table.touches + 1
            else:
                self.miss(now, which, table)
        if self.policy == "empty_all_levels":
            needed = {which // 512 for which in self.at(HERE, REMOTE, COMPRESSED, SWAPPED)}
            self.count["upper_freed"] += len(self.upper - needed)
            self.upper &= needed
        self.count["peak_tables"] = max(self.count["peak_tables"], len(self.at(HERE)))

    def unmap(self, which: int, table: Table) -> None:
        if table.place in {HERE, REMOTE} and self.policy != "none":
            if table.place == HERE:
                self.keeper.left(which)
            table.place = GONE
            self.count["freed"] += 1
        elif table.place in {COMPRESSED, SWAPPED}:
            table.place = GONE

    def miss(self, now: int, which: int, table: Table) -> None:
        if table.frozen_from is not None and now - table.frozen_from <= self.freeze:
            self.count["retries"] += 1
        table.frozen_from = None
        if table.place == REMOTE:
            self.count["remote_hits"] += 1
            return
        self.count[CAME_AS[table.place]] += 1
        if len(self.at(HERE)) >= self.budget:
            self.make_room(now)
        self.keeper.came(which)
        table.place, table.came, table.touched, table.touches = HERE, now, now, 0
        self.upper.add(which // 512)
        self.count["over_budget"] += len(self.at(HERE)) > self.budget

    def make_room(self, now: int) -> None:
        full = self.action == "migrate" and self.room is not None and len(self.at(REMOTE)) >= self.room
        if full and self.evicts_in_use:
            self.count["not_moved"] += 1
            return
        gone = self.keeper.victim(self.at(HERE), now)
        if gone is None:
            return
        self.keeper.left(gone)
        table = self.tables[gone]
        in_use = table.content == TOUCH
        table.place = GOES_TO[self.action] if in_use else GONE
        self.count[TAKEN_AS[self.action] if in_use else "freed"] += 1
        if self.freeze:
            table.frozen_from = now


def reference_replay(
    events: Iterable[tuple[int, int]],
    policy: str,
    budget: int,
    *,
    action: str = "drop",
    seed: int = 0,
    freeze: int = 0,
    room: int | None = None,
) -> ReplayCounts:
    """What `policy` does to `events`, (table, kind) pairs, with a budget of so many tables.

    `room`: for how many migrated tables other nodes have room (None: for all).
    """
    events = list(events)
    one = Reference(events, policy, budget, action=action, seed=seed, freeze=freeze, room=room)
    for now, (which, kind) in enumerate(events):
        one.happens(now, which, kind)
    found = ReplayCounts(**one.count, end_tables=len(one.at(HERE)), upper_tables=len(one.upper))
    return ReplayCounts(**{**asdict(found), "hits": found.touches - found.misses})
