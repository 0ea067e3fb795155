"""Which host does which trials: rounds to hosts as these get free, and again what was lost.

A round is one trial of each arm, the same repeat, and goes to one host as a whole: what is compared in pairs
is compared on one host. Dask is told where each trial goes. By itself it would put the next task where there
is room, and the trials of a lost worker each to another.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.fleet.archive import Packed
from orchestrator.fleet.card import HostCard, Program
from orchestrator.fleet.needs import Needs, Resources, missing
from orchestrator.launch.progress import Progress
from orchestrator.plan import PlannedTrial
from orchestrator.run.rounds import Round

_LOOK_SECONDS: Final = 0.5
# A host on which nothing comes to its end any more is left out: it would lose one round after another.
_MOST_FAILURES_IN_A_ROW: Final = 3


@dataclass(frozen=True)
class Handed:
    """A trial that a host was given, for the `attempt`th time."""

    trial: str
    host: HostCard
    attempt: int
    takes: Resources
    began: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[str, int]:
        """Names it among those of a run."""
        return self.trial, self.attempt


@dataclass(frozen=True)
class Arrival:
    """What came of one: its folder, or what kept the host from making one. `refused`: it takes none."""

    trial: str
    attempt: int
    packed: Packed | None = None
    error: OrchestratorError | None = None
    refused: bool = False


class Hands(ABC):
    """What brings trials to hosts, and back. Raises InfrastructureError where the head has gone."""

    @abstractmethod
    def hosts(self) -> Sequence[HostCard]:
        """Those that are there now."""

    @abstractmethod
    def give(self, handed: Handed) -> None:
        """Have a host do a trial; it is done once there is room on the host."""

    @abstractmethod
    def forget(self, handed: Handed) -> None:
        """Take back what is not wanted any more: what runs of it is ended."""

    @abstractmethod
    def tell(self, said: Mapping[str, object]) -> None:
        """Have whoever asks the head see this of the run: text, numbers and null."""

    @abstractmethod
    def arrivals(self, seconds: float) -> Sequence[Arrival]:
        """What has come by now; waits so long for a first one."""


@dataclass(frozen=True)
class Ended:
    """A trial that is not done any more: taken as it came, or lost for good."""

    trial: str
    host: str
    seconds: float
    error: OrchestratorError | None = None


Accept = Callable[[Arrival, Handed], str]
"""Takes what came into the run; returns why not, empty where it was taken. Raises what ends the run."""


@dataclass
class _Waiting:
    """Trials that go to one host: to `host` where that is named and there. Those that were lost are a round
    of their own, which avoids where that was."""

    trials: list[PlannedTrial]
    host: str = ""
    avoid: frozenset[str] = frozenset()


class Dispatcher:
    """Has trials done by hosts."""

    def __init__(
        self,
        rounds: Iterable[Round],
        needs: Mapping[str, Needs],
        hands: Hands,
        accept: Accept,
        progress: Progress,
        *,
        program: Program,
        retries: int,
        wait_seconds: float,
        wanted: Callable[[HostCard], str] = lambda _: "",
    ) -> None:
        """`needs`: by arm. `wanted` says why a host is not, such as for its acceleration."""
        self._waiting = [_Waiting(list(one.trials), one.host) for one in rounds]
        self._total = sum(len(one.trials) for one in self._waiting)
        self._planned = {trial.id: trial for one in self._waiting for trial in one.trials}
        self._needs, self._hands, self._accept, self._progress = needs, hands, accept, progress
        self._program, self._retries, self._wait_seconds = program, retries, wait_seconds
        self._wanted = wanted
        self._running: dict[str, Handed] = {}
        self._begun: set[str] = set()
        self._taken: dict[str, Resources] = {}  # by token
        self._attempts: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()  # in a row, by the host's name
        self._left_out: dict[str, str] = {}
        self._cards: dict[str, HostCard] = {}
        self._able: dict[tuple[str, str], bool] = {}
        self._alone_since = time.monotonic()
        self.broken_rounds: set[int] = set()
        """Repeats whose trials were done on more than one host."""
        self.lost: dict[str, list[str]] = {}
        """For each trial that was lost: where, and why."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Hosts that were given nothing any more, and why."""
        return self._left_out

    def run(self) -> Iterator[Ended]:
        """Have them all done; gives each as it ends. Takes back what runs when the caller ends it."""
        try:
            while self._waiting or self._running:
                yield from self._look()
                self._hand_out()
                yield from self._without_hosts()
                for arrival in self._hands.arrivals(_LOOK_SECONDS):
                    yield from self._arrived(arrival)
        finally:
            for handed in self._running.values():
                self._hands.forget(handed)

    def _look(self) -> Iterator[Ended]:
        """See which hosts are there; what ran on those that are not is lost."""
        there = {card.token: card for card in self._hands.hosts()}
        if there.keys() == self._cards.keys():
            return
        for token in self._cards.keys() - there.keys():
            self._taken.pop(token, None)
        gone = [handed for handed in self._running.values() if handed.host.token not in there]
        self._cards = there
        for handed in gone:
            self._hands.forget(handed)
        yield from self._lose(gone, "the host has gone")

    def _hand_out(self) -> None:
        """Give each round that waits to a host with room for one of its trials, the idlest first."""
        kept: list[_Waiting] = []
        for number, waiting in enumerate(self._waiting):
            host = self._host_for(waiting)
            if host is None:
                kept.append(waiting)
                if not any(self._is_free(card) for card in self._cards.values()):
                    kept += self._waiting[number + 1 :]
                    break
                continue
            for trial in waiting.trials:
                self._give(trial, host)
        self._waiting = kept

    def _give(self, trial: PlannedTrial, host: HostCard) -> None:
        self._attempts[trial.id] += 1
        takes = self._needs[trial.arm].takes(host)
        handed = Handed(trial.id, host, self._attempts[trial.id], takes)
        self._running[trial.id] = handed
        self._taken[host.token] = self._taken.get(host.token, Resources()) + takes
        self._begun.add(trial.id)
        self._progress.trial(f"{trial.id} on {host.name}", len(self._begun), self._total)
        self._hands.give(handed)

    def _is_free(self, card: HostCard) -> bool:
        taken = self._taken.get(card.token, Resources())
        return card.name not in self._left_out and taken.cores < card.cores

    def _host_for(self, waiting: _Waiting) -> HostCard | None:
        able = [card for card in self._cards.values() if self._can(card, waiting)]
        # Where a trial was lost it is not done again, unless there is no other host.
        others = [card for card in able if card.name not in waiting.avoid] or able
        # The others of its repeat were done there; what is left of them waits for it.
        others = [card for card in able if card.name == waiting.host] or others
        free = [card for card in others if self._has_room(card, waiting)]
        return min(free, key=lambda card: (self._share_taken(card), card.name), default=None)

    def _can(self, card: HostCard, waiting: _Waiting) -> bool:
        if card.name in self._left_out:
            return False
        for arm in {trial.arm for trial in waiting.trials}:
            key = (card.token, arm)
            if key not in self._able:
                lacks = [*self._program.differences(card.program), *missing(self._needs[arm], card)]
                self._able[key] = not lacks and not self._wanted(card)
            if not self._able[key]:
                return False
        return True

    def _has_room(self, card: HostCard, waiting: _Waiting) -> bool:
        taken = self._taken.get(card.token, Resources())
        first = self._needs[waiting.trials[0].arm].takes(card)
        return (taken + first).fits(Resources.of(card))

    def _share_taken(self, card: HostCard) -> float:
        return self._taken.get(card.token, Resources()).cores / max(1, card.cores)

    def _without_hosts(self) -> Iterator[Ended]:
        """What waits ends where no host has been there for it for as long as one waits."""
        if self._running or any(
            self._can(card, one) for card in self._cards.values() for one in self._waiting
        ):
            self._alone_since = time.monotonic()
            return
        if time.monotonic() - self._alone_since < self._wait_seconds:
            return
        why = "; ".join(f"{name}: {why}" for name, why in self._left_out.items()) or "none is there"
        for waiting in self._waiting:
            for trial in waiting.trials:
                error = InfrastructureError(
                    "no host of the fleet is left for it", details=why, hint="orchestrator fleet status"
                )
                yield Ended(trial.id, "", 0.0, error)
        self._waiting = []

    def _arrived(self, arrival: Arrival) -> Iterator[Ended]:
        handed = self._running.get(arrival.trial)
        if handed is None or handed.attempt != arrival.attempt:
            return  # it came twice: the other one counts
        name, seconds = handed.host.name, time.monotonic() - handed.began
        why = self._accept(arrival, handed)
        self._done_with(handed)
        if not why:
            self._failures[name] = 0
            yield Ended(arrival.trial, name, seconds)
            return
        self._failures[name] += 1
        if arrival.refused or self._failures[name] >= _MOST_FAILURES_IN_A_ROW:
            self._leave_out(name, why)
        yield from self._lose([handed], why, arrival.error)

    def _leave_out(self, name: str, why: str) -> None:
        if name not in self._left_out:
            self._left_out[name] = why
            self._progress.note(f"{name} is given no more trials: {why}")

    def _done_with(self, handed: Handed) -> None:
        self._running.pop(handed.trial, None)
        token, takes = handed.host.token, handed.takes
        if token in self._taken:
            before = self._taken[token]
            self._taken[token] = Resources(
                before.memory - takes.memory, before.cores - takes.cores, before.disk - takes.disk
            )

    def _lose(
        self, lost: Sequence[Handed], why: str, error: OrchestratorError | None = None
    ) -> Iterator[Ended]:
        again: dict[tuple[int, str], _Waiting] = {}
        for handed in lost:
            self._done_with(handed)
            trial, name = self._planned[handed.trial], handed.host.name
            self._lost[trial.id] += 1
            self.lost.setdefault(trial.id, []).append(f"{name}: {why}")
            if self._lost[trial.id] > self._retries:
                said = f"lost {self._lost[trial.id]} times"
                details = "\n".join(self.lost[trial.id])
                hint, tail = (error.hint, error.console_tail) if error else ("", "")
                failure = InfrastructureError(said, details=details, hint=hint, console_tail=tail)
                yield Ended(trial.id, name, time.monotonic() - handed.began, failure)
                continue
            self._progress.note(f"{trial.id} was lost on {name} ({why}) and is done again")
            self.broken_rounds.add(trial.repeat)
            one = again.setdefault((trial.repeat, name), _Waiting([], avoid=frozenset({name})))
            one.trials.append(trial)
        # Before what has not begun: a host that is free completes a round before it begins another.
        self._waiting = [replace(one) for one in again.values()] + self._waiting
