"""A worker: it joins the head, and has the unit do what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from dask.typing import Key
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.utils import get_ip

from orchestrator.fleet.card import HostCard
from orchestrator.fleet.config import Fleet, split_address
from orchestrator.fleet.engine.settings import CARD, Tell, configure, security_of, stopped, topic_of
from orchestrator.fleet.reach import must_reach
from orchestrator.fleet.sweep_unit import SweepHost, serve_sweeps_here
from orchestrator.fleet.unit import UnitHost, serve_here

_AGAIN_SECONDS: Final = 2.0
_BEAT_SECONDS: Final = 5.0


class _Worker(Worker):  # type: ignore[misc]  # Dask has no types here
    """Has no HTTP server, and is quiet beside trials that are measured."""

    def __init__(self, *words: Any, beat_seconds: float, **options: Any) -> None:
        super().__init__(*words, **options)
        self.beat_seconds = beat_seconds

    async def heartbeat(self) -> None:
        """Dask's, at an interval that the head does not choose: it would have one every half second."""
        await super().heartbeat()
        self.periodic_callbacks["heartbeat"].callback_time = self.beat_seconds * 1000

    def start_http_server(self, *words: Any, **options: Any) -> None:
        """See above."""


def serve_worker(
    fleet: Fleet, host: UnitHost, sweeps: SweepHost, card: Callable[[], HostCard], tell: Tell
) -> None:
    """Do trials for a head until a signal ends it; whenever the head is lost, what runs is ended.

    `card` is asked whenever the head is joined. Raises InfrastructureError where it can not be at first.
    """
    configure(fleet)
    files = fleet.certificates("worker")
    must_reach(fleet, files)
    serve_here(host)
    serve_sweeps_here(sweeps)

    async def serve() -> None:
        stop = stopped()
        while not stop.is_set():
            with suppress(OSError, ValueError, TimeoutError):
                await join(fleet, host, card(), tell, stop)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AGAIN_SECONDS)

    try:
        asyncio.run(serve())
    finally:
        sweeps.close()


async def join(fleet: Fleet, host: UnitHost, card: HostCard, tell: Tell, stop: asyncio.Event) -> None:
    """Do trials for the head until it is lost or `stop` is set; what runs then is ended."""
    protocol, head, _ = split_address(fleet.text.head)
    units = _Units(host)
    worker = _Worker(
        fleet.text.head,
        beat_seconds=min(_BEAT_SECONDS, fleet.text.silent / 4),
        name=f"{host.name}@{host.token}",
        nthreads=max(1, card.cores),
        resources={"memory": card.memory, "cores": card.cores, "disk": card.disk},
        host=get_ip(head),
        port=fleet.text.worker_port,
        protocol=protocol,
        security=security_of(fleet, "worker"),
        memory_limit=0,  # no part of Dask ends or halts anything for the memory that guests take
        nanny=None,
        plugins=(units,),
        startup_information={CARD: lambda _: card.model_dump(mode="json")},
        death_timeout=fleet.text.silent,
    )
    host.tell = lambda key, line: worker.loop.add_callback(worker.log_event, topic_of(key), [host.name, line])
    try:
        await worker
        tell(f"{host.name} does trials for {fleet.text.head}")
        over = asyncio.ensure_future(worker.finished())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({over, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (over, stopped):
            waiting.cancel()
        if not stop.is_set():
            tell("the head is lost: what ran was ended; trying again")
    finally:
        host.end_all()
        await worker.close(reason="the worker ends")


class _Units(WorkerPlugin):  # type: ignore[misc]  # Dask has no types here
    """Ends the process of a trial that is not wanted any more."""

    name = "orchestrator"

    def __init__(self, host: UnitHost) -> None:
        self.host = host

    def transition(self, key: Key, start: str, finish: str, **_: Any) -> None:
        if start in {"executing", "long-running"} and finish == "released":
            self.host.end(str(key))

    def teardown(self, **_: object) -> None:
        self.host.end_all()
