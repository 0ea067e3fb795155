"""The head: Dask's scheduler, what it knows of hosts and runs, and the question for it."""

from __future__ import annotations

import asyncio
import time
from importlib.util import find_spec
from typing import Any, Final

from distributed import Scheduler
from distributed.core import rpc
from distributed.diagnostics.plugin import SchedulerPlugin

from orchestrator.errors import InfrastructureError
from orchestrator.fleet.config import Fleet, split_address
from orchestrator.fleet.engine.settings import (
    CARD,
    CONNECT_SECONDS,
    Json,
    Tell,
    configure,
    security_of,
    stopped,
)
from orchestrator.fleet.reach import must_reach

_LOOPBACK: Final = "127.0.0.1"


class _Hosts(SchedulerPlugin):  # type: ignore[misc]  # Dask has no types here
    """What the head knows of hosts and runs, for whoever asks."""

    name = "orchestrator"

    def __init__(self) -> None:
        self.generation = 0
        self.runs: dict[str, Json] = {}  # by Dask's name of the client

    async def start(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        scheduler.handlers.update(
            orchestrator_hosts=self.hosts, orchestrator_status=self.status, orchestrator_run=self.run
        )

    def add_worker(self, **_: object) -> None:
        self.generation += 1

    def remove_worker(self, **_: object) -> None:
        self.generation += 1

    def remove_client(self, *, client: str, **_: object) -> None:
        self.runs.pop(client, None)

    async def hosts(self, known: int) -> Json:
        """The cards of hosts by their address; none where nothing has changed."""
        if known == self.generation:
            return {"generation": known}
        return {"generation": self.generation, "hosts": self._cards()}

    async def status(self) -> Json:
        """Hosts with what they run, in seconds since when, and what runs say of themselves."""
        now = time.time()
        workers = self.scheduler.workers.items()
        hosts = [
            {
                "card": ws.extra.get(CARD),
                "address": address,
                "silent_seconds": max(0.0, now - ws.last_seen),
                "running": {str(ts.key): seconds for ts, seconds in ws.executing.items()},
                "given": len(ws.processing),
            }
            for address, ws in workers
        ]
        return {"hosts": hosts, "runs": list(self.runs.values())}

    async def run(self, client: str, said: Json) -> None:
        """What the client says of its run."""
        if client in self.scheduler.clients:
            self.runs[client] = said

    def _cards(self) -> Json:
        return {address: ws.extra.get(CARD) for address, ws in self.scheduler.workers.items()}


class _Head(Scheduler):  # type: ignore[misc]  # as above
    """Listens at the address of fleet.toml, and nowhere else."""

    def start_http_server(self, *words: Any, **options: Any) -> None:
        """Only for the dashboard: Dask's own would serve figures on a port of its choice without it."""
        if self.shows:
            super().start_http_server(*words, **options)

    def __init__(self, fleet: Fleet) -> None:
        self.shows = find_spec("bokeh") is not None
        super().__init__(
            host=split_address(fleet.text.head)[1],
            port=split_address(fleet.text.head)[2],
            protocol=split_address(fleet.text.head)[0],
            security=security_of(fleet, "head"),
            dashboard=self.shows,
            dashboard_address=f"{_LOOPBACK}:{fleet.text.dashboard_port}",
            plugins=[_Hosts()],
        )


def serve_head(fleet: Fleet, tell: Tell) -> None:
    """Be the head until a signal ends it. Raises InfrastructureError where it cannot listen."""
    configure(fleet)

    async def serve() -> None:
        stop = stopped()
        try:
            head = await _Head(fleet)
        except (OSError, RuntimeError) as error:
            why = error.__cause__ or error  # Dask's own says no more than that it failed
            raise InfrastructureError(
                f"the head cannot listen at {fleet.text.head}: {getattr(why, 'strerror', None) or why}",
                hint="`head` in fleet.toml is an address of this host, and the port is free: ss -ltnp",
            ) from None
        try:
            tell(f"listening at {head.address}")
            if head.shows:
                tell(f"dashboard: http://{_LOOPBACK}:{head.http_server.port}/status")
            await stop.wait()
        finally:
            await head.close()

    asyncio.run(serve())


def ask_status(fleet: Fleet) -> Json:
    """What the head says of hosts and runs. Raises InfrastructureError."""
    configure(fleet)
    must_reach(fleet, fleet.certificates("client"))

    async def ask() -> Json:
        security = security_of(fleet, "client")
        async with rpc(fleet.text.head, connection_args=security.get_connection_args("client")) as head:
            answer: Json = await asyncio.wait_for(head.orchestrator_status(), CONNECT_SECONDS)
            return answer

    try:
        return asyncio.run(ask())
    except (OSError, TimeoutError) as error:
        raise InfrastructureError(f"the head of the fleet does not answer: {error}") from None
