"""Runs on a fleet that is played: who gets which round, what becomes of what is lost, and what a run says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from played import PROGRESS, Played, places
from test_execute import plan
from test_fleet import CARD, GIB, STEPS

from orchestrator.errors import BadInputError, GuestPanicError, InfrastructureError
from orchestrator.fleet.archive import Packed, pack
from orchestrator.fleet.card import HostCard, this_program
from orchestrator.fleet.config import Fleet, FleetText
from orchestrator.fleet.dispatch import Arrival, Dispatcher, Handed, Hands
from orchestrator.fleet.execute import execute_on_fleet, resume_on_fleet
from orchestrator.fleet.needs import needs_by_arm
from orchestrator.plan import Plan
from orchestrator.run.execute import RunResult, execute_plan
from orchestrator.run.inputs import with_inputs
from orchestrator.run.rounds import rounds
from orchestrator.run.unit import Unit, execute_alone
from orchestrator.store import open_run

FLEET = Fleet(Path("fleet.toml"), FleetText(version=1, head="tcp://127.0.0.1:1", wait="0s"))


def card(name: str, **words: Any) -> HostCard:
    return CARD.model_copy(update={"name": name, "token": name, "program": this_program(), **words})


@dataclass
class PlayedHands(Hands):
    """Hosts that do one trial each at every look, in the order in which they were given.

    `before` is called at each look, with its number from 1: it may change `cards`, or what arrives.
    """

    cards: list[HostCard]
    folder: Path
    planned: Plan
    trials: Played = field(default_factory=Played)
    before: Callable[[PlayedHands, int], None] = lambda _hands, _number: None
    given: list[tuple[str, str]] = field(default_factory=list)
    queues: dict[str, list[Handed]] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    reports: list[dict[str, object]] = field(default_factory=list)
    spoils: Callable[[Handed, Arrival], Arrival] = lambda _handed, arrival: arrival
    looks: int = 0

    def hosts(self) -> Sequence[HostCard]:
        return self.cards

    def give(self, handed: Handed) -> None:
        self.given.append((handed.trial, handed.host.name))
        self.queues.setdefault(handed.host.token, []).append(handed)

    def forget(self, handed: Handed) -> None:
        self.forgotten.append(handed.trial)
        for queue in self.queues.values():
            if handed in queue:
                queue.remove(handed)

    def tell(self, said: Mapping[str, object]) -> None:
        self.reports.append(dict(said))

    def arrivals(self, seconds: float) -> Sequence[Arrival]:
        self.looks += 1
        assert self.looks < 200, "it goes on for ever"
        self.before(self, self.looks)
        first = [queue.pop(0) for one in self.cards if (queue := self.queues.get(one.token))]
        return [self.spoils(handed, self.done(handed)) for handed in first]

    def done(self, handed: Handed) -> Arrival:
        into = self.folder / f"{self.looks}-{handed.host.name}"
        unit = Unit.of(self.planned, places(self.folder), PROGRESS, None, self.trials)
        made = execute_alone(unit, handed.trial, into, handed.host.name)
        packed = pack(made.directory, GIB)
        shutil.rmtree(into)
        return Arrival(handed.trial, handed.attempt, packed)


def fails(handed: Handed, why: str = "it broke", *, refused: bool = False) -> Arrival:
    return Arrival(handed.trial, handed.attempt, error=InfrastructureError(why), refused=refused)


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return with_inputs(plan(STEPS).model_copy(update={"accel": "tcg"}), places(tmp_path))


@pytest.fixture
def hands(tmp_path: Path, planned: Plan) -> PlayedHands:
    return PlayedHands([card("h1"), card("h2")], tmp_path, planned)


def run(
    hands: PlayedHands, tmp_path: Path, *, fleet: Fleet = FLEET, resumed: Path | None = None
) -> RunResult:
    @contextmanager
    def connect(*_: object) -> Iterator[Hands]:
        yield hands

    if resumed:
        return resume_on_fleet(resumed, places(tmp_path), PROGRESS, fleet, connect=connect)
    return execute_on_fleet(
        hands.planned, places(tmp_path), tmp_path / "run", PROGRESS, fleet, connect=connect
    )


def hosts_of(run_dir: Path) -> dict[str, set[str]]:
    """Of each repeat, the hosts that its trials say that they were on."""
    found: dict[str, set[str]] = {}
    for path in (run_dir / "trials").glob("*/unit.json"):
        found.setdefault(path.parent.name.rpartition("-")[2], set()).add(json.loads(path.read_text())["host"])
    return found


def test_a_round_is_one_host_s_in_the_order_of_the_plan(hands: PlayedHands, tmp_path: Path) -> None:
    result = run(hands, tmp_path)
    ids = [trial.id for trial in hands.planned.trials]
    assert result.exit_code == 0
    assert sorted(trial for trial, _ in hands.given) == sorted(ids)
    for host in ("h1", "h2"):
        mine = [trial for trial, name in hands.given if name == host]
        assert mine == [trial for trial in ids if trial in mine], "the seed's"
        assert mine
    assert all(len(hosts) == 1 for hosts in hosts_of(result.directory).values())
    meta = open_run(result.directory).meta.facts()
    assert "lost_trials" not in meta
    last = {"run": "run", "done": len(ids), "total": len(ids), "failed": 0, "seconds_left": 0.0}
    assert hands.reports[-1] == last
    local = execute_plan(
        hands.planned, places(tmp_path), tmp_path / "local", PROGRESS, machinery=hands.trials
    )
    assert [one.trial for one in result.analysis.summaries] == [one.trial for one in local.analysis.summaries]


def test_trials_of_a_host_that_goes_are_done_elsewhere_together(hands: PlayedHands, tmp_path: Path) -> None:
    def goes(hands: PlayedHands, number: int) -> None:
        if number == 1:
            hands.cards = [card("h2"), card("h3")]

    hands.before = goes
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    first = [trial for trial, name in hands.given if name == "h1"]
    again = [(trial, name) for trial, name in hands.given if trial in first and name != "h1"]
    assert [trial for trial, _ in again] == first
    assert len({name for _, name in again}) == 1, "one round, one host"
    meta = open_run(result.directory).meta.facts()
    assert meta["lost_trials"] == [f"{trial}: h1: the host has gone" for trial in first]
    assert meta["broken_rounds"] == [1]
    assert {"h1"}.isdisjoint(set().union(*hosts_of(result.directory).values()))


def test_a_worker_that_was_started_again_is_another(hands: PlayedHands, tmp_path: Path) -> None:
    def again(hands: PlayedHands, number: int) -> None:
        if number == 1:
            hands.cards = [card("h1", token="2"), card("h2")]  # noqa: S106  # as in CARD

    hands.before = again
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    assert open_run(result.directory).meta.facts()["broken_rounds"] == [1]


def test_a_trial_is_done_again_as_often_as_it_says_and_then_it_failed(
    hands: PlayedHands, tmp_path: Path
) -> None:
    victim = hands.planned.trials[0].id
    hands.spoils = lambda handed, came: fails(handed) if handed.trial == victim else came
    result = run(hands, tmp_path)
    assert result.exit_code == 3
    assert [trial for trial, _ in hands.given].count(victim) == 3, "twice again"
    ((trial, error),) = result.errors
    assert (trial, error.brief) == (victim, "lost 3 times")
    assert error.details.splitlines() == [f"{name}: it broke" for name in ("h1", "h2", "h1")]
    hands.spoils = lambda _handed, came: came
    hands.given = []
    again = run(hands, tmp_path, resumed=result.directory)
    assert again.exit_code == 0
    assert [trial for trial, _ in hands.given] == [victim]
    others = {name for repeat, names in hosts_of(again.directory).items() for name in names if repeat == "01"}
    assert len(others) == 1, "what is left of a round goes to where the rest of it was done"


def test_a_guest_s_own_failure_is_kept_and_the_host_s_is_done_again(
    hands: PlayedHands, tmp_path: Path
) -> None:
    panics, breaks = hands.planned.trials[0].id, hands.planned.trials[1].id
    hands.trials.ends = {
        panics: GuestPanicError("it panicked"),
        breaks: InfrastructureError("the disk was full"),
    }

    def heals(hands: PlayedHands, number: int) -> None:
        if [trial for trial, _ in hands.given].count(breaks) > 1:
            hands.trials.ends.pop(breaks, None)

    hands.before = heals
    result = run(hands, tmp_path)
    names = [trial for trial, _ in hands.given]
    assert (names.count(panics), names.count(breaks)) == (1, 2)
    assert [trial for trial, _ in result.errors] == [panics]
    assert [path.name for path in (result.directory / "lost").iterdir()] == [f"{breaks}.1"]


def test_a_host_that_refuses_or_only_fails_is_given_no_more(hands: PlayedHands, tmp_path: Path) -> None:
    hands.spoils = lambda handed, came: (
        fails(handed, "no", refused=True) if handed.host.name == "h1" else came
    )
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    assert open_run(result.directory).meta.facts()["left_out_hosts"] == {"h1": "no"}
    assert set().union(*hosts_of(result.directory).values()) == {"h2"}


def test_where_all_hosts_are_out_what_waits_has_failed(hands: PlayedHands, tmp_path: Path) -> None:
    hands.spoils = lambda handed, _came: fails(handed, "no", refused=True)
    result = run(hands, tmp_path)
    assert result.exit_code == 3
    assert len(result.errors) == len(hands.planned.trials)
    assert {error.brief for _, error in result.errors} == {"no host of the fleet is left for it"}
    assert open_run(result.directory).status == "failed"


def test_what_is_no_trial_of_the_plan_is_not_taken(hands: PlayedHands, tmp_path: Path) -> None:
    def spoils(handed: Handed, came: Arrival) -> Arrival:
        assert came.packed is not None
        torn = Packed(came.packed.data[:-1], came.packed.sha256)
        return replace(came, packed=torn) if handed.attempt == 1 else came

    hands.spoils = spoils
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    lost = open_run(result.directory).meta.facts()["lost_trials"]
    assert len(lost) == len(hands.planned.trials)
    assert all("not what its SHA-256 says" in line for line in lost)
    assert not list(result.directory.glob(".*.arriving"))


def test_trials_that_cannot_be_compared_are_done_elsewhere(hands: PlayedHands, tmp_path: Path) -> None:
    done = hands.done

    def of_another(handed: Handed) -> Arrival:
        hands.trials.accel = "kvm" if handed.host.name == "h2" else "tcg"
        return done(handed)

    hands.done = of_another  # type: ignore[method-assign]
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    assert set().union(*hosts_of(result.directory).values()) == {"h1"}
    lost = open_run(result.directory).meta.facts()["lost_trials"]
    assert any("another accel" in line for line in lost)


def test_one_that_comes_twice_counts_once(hands: PlayedHands, tmp_path: Path) -> None:
    victim, late = hands.planned.trials[0].id, list[Arrival]()

    def twice(handed: Handed, came: Arrival) -> Arrival:
        if handed.trial == victim and handed.attempt == 1:
            late.append(came)
            return fails(handed)
        return came

    hands.spoils = twice
    plain = hands.arrivals
    hands.arrivals = lambda seconds: [*plain(seconds), *late]  # type: ignore[method-assign]
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    assert [one.trial for one in result.analysis.summaries].count(victim) == 1


def test_without_hosts_or_able_ones_nothing_is_begun(hands: PlayedHands, tmp_path: Path) -> None:
    hands.cards = []
    with pytest.raises(InfrastructureError, match="no host has joined"):
        run(hands, tmp_path)
    hands.cards = [card("h1", memory=1)]
    with pytest.raises(BadInputError, match="no host of the fleet can do trials of"):
        run(hands, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("with_kvm", [True, False])
def test_auto_is_kvm_where_any_host_has_it(hands: PlayedHands, tmp_path: Path, with_kvm: bool) -> None:
    hands.planned = hands.planned.model_copy(update={"accel": "auto"})
    hands.cards = [card("h1", kvm="" if with_kvm else "none"), card("h2", kvm="none")]
    result = run(hands, tmp_path)
    assert result.exit_code == 0
    expected = {"h1"} if with_kvm else {"h1", "h2"}
    assert set().union(*hosts_of(result.directory).values()) == expected


def test_an_interrupted_run_takes_back_what_runs(hands: PlayedHands, tmp_path: Path) -> None:
    def stop(hands: PlayedHands, number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    hands.before = stop
    with pytest.raises(KeyboardInterrupt):
        run(hands, tmp_path)
    run_dir = tmp_path / "run"
    assert open_run(run_dir).status == "interrupted"
    begun = {trial for trial, _ in hands.given}
    assert set(hands.forgotten) == begun - {path.name for path in (run_dir / "trials").iterdir()}
    hands.before = lambda _hands, _number: None
    (run_dir / ".a.arriving").mkdir()
    assert run(hands, tmp_path, resumed=run_dir).exit_code == 0
    assert not list(run_dir.glob(".*.arriving"))
    with pytest.raises(BadInputError, match="is whole"):
        run(hands, tmp_path, resumed=run_dir)


def test_trials_whose_times_do_not_matter_are_side_by_side_as_far_as_cores_go(
    hands: PlayedHands, tmp_path: Path
) -> None:
    hands.cards = [card("h1", cores=4)]
    planned = hands.planned.model_copy(update={"times": "ignored"})
    seen: list[int] = []
    hands.before = lambda hands, _: seen.append(sum(one.takes.cores for one in hands.queues["h1"]))
    took: list[Arrival] = []
    dispatcher = Dispatcher(
        rounds(planned),
        needs_by_arm(planned),
        hands,
        lambda arrival, _: took.append(arrival) or "",  # type: ignore[func-returns-value]
        PROGRESS,
        program=this_program(),
        retries=0,
        wait_seconds=0,
    )
    assert [one.trial for one in dispatcher.run()] == [arrival.trial for arrival in took]
    assert {handed.takes.cores for queue in hands.queues.values() for handed in queue} == set()
    assert max(seen) > planned.arms[0].machine.vcpus
