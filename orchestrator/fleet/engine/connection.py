"""A client's connection to the head: what it asks, and whether it is there still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from distributed import Client
from pydantic import ValidationError

from orchestrator.errors import InfrastructureError
from orchestrator.fleet.card import HostCard
from orchestrator.fleet.config import Fleet
from orchestrator.fleet.engine.settings import CONNECT_SECONDS, configure, security_of
from orchestrator.fleet.reach import must_reach

HOST_GONE: Final = "the host has gone"
_HOSTS_EVERY_SECONDS: Final = 1.0


class Connection:
    """Goes through the head only. A context manager, which raises InfrastructureError where none answers."""

    def __init__(self, fleet: Fleet, name: str, *, again: str) -> None:
        """`name` is this client's among others; `again` is what to do once a head that went is back."""
        self.fleet, self._name, self._again = fleet, name, again
        self._generation = -1
        self._cards: dict[str, HostCard] = {}  # by address
        self._looked = float("-inf")

    def __enter__(self) -> Connection:
        configure(self.fleet)
        must_reach(self.fleet, self.fleet.certificates("client"))
        try:
            self.client = Client(
                self.fleet.text.head,
                security=security_of(self.fleet, "client"),
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                direct_to_workers=False,
                name=f"orchestrator-{self._name}",
            )
        except (OSError, TimeoutError) as error:
            raise InfrastructureError(f"the head of the fleet does not answer: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self.client.close(timeout=CONNECT_SECONDS)

    def hosts(self) -> Mapping[str, HostCard]:
        """Those that are there, by address; asked once a second at most."""
        if time.monotonic() - self._looked >= _HOSTS_EVERY_SECONDS:
            answer = self.ask(lambda: self.client.scheduler.orchestrator_hosts(known=self._generation))
            if "hosts" in answer:
                self._generation = answer["generation"]
                self._cards = _cards(answer["hosts"])
            self._looked = time.monotonic()
        return self._cards

    def tell(self, said: Mapping[str, object]) -> None:
        """Have whoever asks the head see this of what this client does: text, numbers and null."""
        words = dict(said)
        self.ask(lambda: self.client.scheduler.orchestrator_run(client=self.client.id, said=words))

    def call_there(self, address: str, function: Callable[..., str], *words: object) -> str:
        """What a function of ours says on a host; or why it could not be called there."""
        try:
            answers = self.ask(
                lambda: self.client.run(function, *words, workers=[address], on_error="return")
            )
        except KeyError:
            return HOST_GONE
        answer = answers.get(address, HOST_GONE)
        return answer if isinstance(answer, str) else f"{answer!r}"

    def ask(self, call: Callable[[], Any]) -> Any:
        """The answer of the head; raises InfrastructureError where it has gone."""
        try:
            answer = call()
            return self.client.sync(_awaited, answer) if asyncio.iscoroutine(answer) else answer
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            raise self._gone() from error

    def must_be_there(self) -> None:
        """Raise InfrastructureError where the head has gone."""
        if self.client.status != "running":
            raise self._gone()

    def _gone(self) -> InfrastructureError:
        return InfrastructureError(
            f"the head of the fleet has gone: {self.fleet.text.head}",
            hint=f"start it again, and then {self._again}",
        )


def _cards(reported: Mapping[str, object]) -> dict[str, HostCard]:
    cards: dict[str, HostCard] = {}
    for address, card in reported.items():
        with suppress(ValidationError):  # a worker of Dask's own, or of another version: not one of ours
            cards[address] = HostCard.model_validate(card)
    return cards


async def _awaited(answer: Any) -> Any:
    return await answer
