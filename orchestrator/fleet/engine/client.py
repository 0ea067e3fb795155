"""The client: brings trials of a run to workers and what came of them back, all through the head."""

from __future__ import annotations

import queue
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from distributed import Future

from orchestrator.errors import InfrastructureError
from orchestrator.fleet.archive import Packed
from orchestrator.fleet.card import HostCard, Program
from orchestrator.fleet.config import Fleet
from orchestrator.fleet.dispatch import Arrival, Handed, Hands
from orchestrator.fleet.engine.connection import HOST_GONE, Connection
from orchestrator.fleet.engine.settings import CONNECT_SECONDS, Tell, topic_of
from orchestrator.fleet.unit import Answer, Order, keep_plan, run_unit


class DaskHands(Hands):
    """Brings the trials of one run to the workers of a fleet, through the head only. A context manager."""

    def __init__(
        self, fleet: Fleet, run: str, plan_json: str, *, plan_sha256: str, program: Program, note: Tell
    ) -> None:
        """`run` names it among those of other clients; `note` takes what a trial says of itself."""
        self._fleet, self._run, self._note = fleet, run, note
        self._plan, self._sha256 = zlib.compress(plan_json.encode()), plan_sha256
        self._program = program
        self._head = Connection(
            fleet, run, again="do what is missing: orchestrator resume RUN --fleet fleet.toml"
        )
        self._futures: dict[str, tuple[Handed, Future]] = {}
        self._given: set[str] = set()
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()  # keys
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._has_plan: set[str] = set()
        self._refused: list[Arrival] = []

    def __enter__(self) -> DaskHands:
        self._head.__enter__()
        self._head.client.subscribe_topic(topic_of(self._run), self._said)
        return self

    def __exit__(self, *_: object) -> None:
        self._head.__exit__()

    def _said(self, event: Any) -> None:
        with suppress(Exception):  # what is shown while it runs is no reason to end it
            _, (host, line) = event
            self._lines.put(f"{host}: {str(line)[:500]}")

    def hosts(self) -> Sequence[HostCard]:
        return list(self._head.hosts().values())

    def give(self, handed: Handed) -> None:
        key = f"{self._run}/{handed.trial}/{handed.attempt}"
        by_token = {card.token: address for address, card in self._head.hosts().items()}
        address = by_token.get(handed.host.token, "")
        if why := self._without_plan(handed.host.token, address):
            self._refused.append(Arrival(handed.trial, handed.attempt, error=InfrastructureError(why)))
            return
        order = Order(
            key=key,
            token=handed.host.token,
            trial=handed.trial,
            plan_sha256=self._sha256,
            program=self._program,
            largest_bytes=self._fleet.text.largest_trial,
        )
        memory, cores, disk = handed.takes.as_tuple
        future = self._head.ask(
            lambda: self._head.client.submit(
                run_unit,
                order.to_json(),
                key=key,
                workers=[address],
                resources={"memory": memory, "cores": cores, "disk": disk},
                priority=-len(self._given),  # in the order in which they were given
                pure=False,
            )
        )
        self._given.add(key)
        self._futures[key] = (handed, future)
        future.add_done_callback(lambda _: self._ended.put(key))

    def _without_plan(self, token: str, address: str) -> str:
        """Have a host keep the plan; why it does not have it, if so."""
        if not address:
            return HOST_GONE
        if token not in self._has_plan:
            if why := self._head.call_there(address, keep_plan, self._sha256, self._plan):
                return why
            self._has_plan.add(token)
        return ""

    def forget(self, handed: Handed) -> None:
        found = self._futures.pop(f"{self._run}/{handed.trial}/{handed.attempt}", None)
        if found:
            with suppress(Exception):  # the head may be what has gone
                found[1].cancel(force=True)

    def arrivals(self, seconds: float) -> Sequence[Arrival]:
        self._head.must_be_there()
        keys = self._ready(seconds)
        with suppress(queue.Empty):
            while True:
                self._note(self._lines.get_nowait())
        found, self._refused = self._refused, []
        for key in keys:
            handed, future = self._futures.pop(key, (None, None))
            if handed is not None and future is not None:
                found += self._arrival(handed, future)
        return found

    def _ready(self, seconds: float) -> list[str]:
        keys: list[str] = []
        with suppress(queue.Empty):
            if not self._refused:
                keys.append(self._ended.get(timeout=seconds))
            while True:
                keys.append(self._ended.get_nowait())
        return keys

    def _arrival(self, handed: Handed, future: Future) -> list[Arrival]:
        if future.status == "finished":
            answer: Answer = self._head.ask(lambda: future.result(timeout=self._fleet.text.silent))
            return [_as_arrival(handed, answer)]
        self._head.must_be_there()
        why = future.exception(timeout=CONNECT_SECONDS) if future.status == "error" else future.status
        # Its worker has gone; `hosts` says so, too.
        return [Arrival(handed.trial, handed.attempt, error=InfrastructureError(f"{HOST_GONE} ({why})"))]

    def tell(self, said: Mapping[str, object]) -> None:
        self._head.tell(said)


def _as_arrival(handed: Handed, answer: Answer) -> Arrival:
    """What a host said, which may be anything."""
    name, attempt = handed.trial, handed.attempt
    if answer.get("made") is True and isinstance(answer.get("data"), bytes):
        return Arrival(name, attempt, packed=Packed(answer["data"], str(answer.get("sha256"))))
    error = InfrastructureError(
        str(answer.get("error") or "the host made no folder of it")[:1000],
        details=str(answer.get("details") or "")[:4000],
        hint=str(answer.get("hint") or "")[:1000],
    )
    return Arrival(name, attempt, error=error, refused=answer.get("refused") is True)
