"""The client: brings trials of a run to workers and what came of them back, all through the head."""

from __future__ import annotations

import asyncio
import queue
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from distributed import Client, Future
from pydantic import ValidationError

from orchestrator.errors import InfrastructureError
from orchestrator.fleet.archive import Packed
from orchestrator.fleet.card import HostCard, Program
from orchestrator.fleet.config import Fleet
from orchestrator.fleet.dispatch import Arrival, Handed, Hands
from orchestrator.fleet.engine.settings import CONNECT_SECONDS, Tell, configure, security_of, topic_of
from orchestrator.fleet.reach import must_reach
from orchestrator.fleet.unit import Answer, Order, keep_plan, run_unit

_HOSTS_EVERY_SECONDS: Final = 1.0


class DaskHands(Hands):
    """Brings the trials of one run to the workers of a fleet, through the head only. A context manager."""

    def __init__(
        self, fleet: Fleet, run: str, plan_json: str, *, plan_sha256: str, program: Program, note: Tell
    ) -> None:
        """`run` names it among those of other clients; `note` takes what a trial says of itself."""
        self._fleet, self._run, self._note = fleet, run, note
        self._plan, self._sha256 = zlib.compress(plan_json.encode()), plan_sha256
        self._program = program
        self._futures: dict[str, tuple[Handed, Future]] = {}
        self._given: set[str] = set()
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()  # keys
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._generation = -1
        self._cards: dict[str, HostCard] = {}  # by address
        self._address: dict[str, str] = {}  # by token
        self._has_plan: set[str] = set()
        self._refused: list[Arrival] = []
        self._looked = float("-inf")

    def __enter__(self) -> DaskHands:
        configure(self._fleet)
        must_reach(self._fleet, self._fleet.certificates("client"))
        try:
            self._client = Client(
                self._fleet.text.head,
                security=security_of(self._fleet, "client"),
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                direct_to_workers=False,
                name=f"orchestrator-{self._run}",
            )
        except (OSError, TimeoutError) as error:
            raise InfrastructureError(f"the head of the fleet does not answer: {error}") from None
        self._client.subscribe_topic(topic_of(self._run), self._said)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self._client.close(timeout=CONNECT_SECONDS)

    def _said(self, event: Any) -> None:
        with suppress(Exception):  # what is shown while it runs is no reason to end it
            _, (host, line) = event
            self._lines.put(f"{host}: {str(line)[:500]}")

    def hosts(self) -> Sequence[HostCard]:
        if time.monotonic() - self._looked >= _HOSTS_EVERY_SECONDS:
            answer = self._ask(lambda: self._client.scheduler.orchestrator_hosts(known=self._generation))
            if "hosts" in answer:
                self._generation = answer["generation"]
                self._learn(answer["hosts"])
            self._looked = time.monotonic()
        return list(self._cards.values())

    def _learn(self, reported: Mapping[str, object]) -> None:
        cards: dict[str, HostCard] = {}
        for address, card in reported.items():
            with suppress(ValidationError):  # a worker of Dask's own, or of another version: not one of ours
                cards[address] = HostCard.model_validate(card)
        self._cards = cards
        self._address = {card.token: address for address, card in cards.items()}

    def give(self, handed: Handed) -> None:
        key = f"{self._run}/{handed.trial}/{handed.attempt}"
        address = self._address[handed.host.token]
        if handed.host.token not in self._has_plan:
            why = self._send_plan(address)
            if why:
                self._refused.append(Arrival(handed.trial, handed.attempt, error=InfrastructureError(why)))
                return
            self._has_plan.add(handed.host.token)
        order = Order(
            key=key,
            token=handed.host.token,
            trial=handed.trial,
            plan_sha256=self._sha256,
            program=self._program,
            largest_bytes=self._fleet.text.largest_trial,
        )
        memory, cores, disk = handed.takes.as_tuple
        future = self._ask(
            lambda: self._client.submit(
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

    def _send_plan(self, address: str) -> str:
        try:
            answers = self._ask(
                lambda: self._client.run(
                    keep_plan, self._sha256, self._plan, workers=[address], on_error="return"
                )
            )
        except KeyError:
            return "the host has gone"
        answer = answers.get(address, "the host has gone")
        return answer if isinstance(answer, str) else f"the plan could not be sent: {answer!r}"

    def forget(self, handed: Handed) -> None:
        found = self._futures.pop(f"{self._run}/{handed.trial}/{handed.attempt}", None)
        if found:
            with suppress(Exception):  # the head may be what has gone
                found[1].cancel(force=True)

    def arrivals(self, seconds: float) -> Sequence[Arrival]:
        self._must_be_connected()
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
            answer: Answer = self._ask(lambda: future.result(timeout=self._fleet.text.silent))
            return [_as_arrival(handed, answer)]
        self._must_be_connected()
        why = future.exception(timeout=CONNECT_SECONDS) if future.status == "error" else future.status
        # Its worker has gone; `hosts` says so, too.
        return [
            Arrival(handed.trial, handed.attempt, error=InfrastructureError(f"the host has gone ({why})"))
        ]

    def tell(self, said: Mapping[str, object]) -> None:
        words = dict(said)
        self._ask(lambda: self._client.scheduler.orchestrator_run(client=self._client.id, said=words))

    def _ask(self, call: Callable[[], Any]) -> Any:
        """The answer of the head; raises InfrastructureError where it has gone."""
        try:
            answer = call()
            return self._client.sync(_awaited, answer) if asyncio.iscoroutine(answer) else answer
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            raise _gone(self._fleet) from error

    def _must_be_connected(self) -> None:
        if self._client.status != "running":
            raise _gone(self._fleet)


async def _awaited(answer: Any) -> Any:
    return await answer


def _gone(fleet: Fleet) -> InfrastructureError:
    return InfrastructureError(
        f"the head of the fleet has gone: {fleet.text.head}",
        hint="start it again, and then do what is missing: orchestrator resume RUN --fleet fleet.toml",
    )


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
