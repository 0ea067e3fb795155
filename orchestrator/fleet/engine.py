"""Dask Distributed, behind one module: the head, a worker, and what brings trials to workers and back.

What travels is text, numbers and bytes. A task is `orchestrator.fleet.unit.run_unit`, by its name.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import signal
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

import dask
from dask.typing import Key
from distributed import Client, Future, Scheduler, Worker
from distributed.core import rpc
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.security import Security
from distributed.utils import get_ip
from pydantic import ValidationError

from orchestrator.errors import InfrastructureError
from orchestrator.fleet.archive import Packed
from orchestrator.fleet.card import HostCard, Program
from orchestrator.fleet.config import Fleet, Role, split_address
from orchestrator.fleet.dispatch import Arrival, Handed, Hands
from orchestrator.fleet.reach import must_reach
from orchestrator.fleet.unit import Answer, Order, UnitHost, keep_plan, run_unit, serve_here

Tell = Callable[[str], None]
Json = dict[str, Any]

_CARD: Final = "orchestrator"  # under which a worker tells the head what it can
_LOOPBACK: Final = "127.0.0.1"
_CONNECT_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 2.0
_HOSTS_EVERY_SECONDS: Final = 1.0
_BEAT_SECONDS: Final = 5.0
_KEPT_EVENTS: Final = 100


def _configure(fleet: Fleet) -> None:
    """Dask's own settings, of this process."""
    dask.config.set(
        {
            "distributed.comm.timeouts.connect": f"{_CONNECT_SECONDS}s",
            "distributed.comm.timeouts.tcp": f"{fleet.text.silent:.0f}s",
            "distributed.scheduler.worker-ttl": f"{fleet.text.silent:.0f}s",
            "distributed.scheduler.work-stealing": False,
            "distributed.scheduler.active-memory-manager.start": False,
            # Each trial is a task for one host, which is given anew if it was lost: that is counted here.
            "distributed.scheduler.allowed-failures": 0,
            "distributed.admin.low-level-log-length": _KEPT_EVENTS,
            "distributed.admin.log-length": _KEPT_EVENTS,
            "distributed.worker.profile.enabled": False,
            # A worker is beside trials that are measured; Dask would wake it every 20 ms to look at a clock.
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.tick.limit": f"{fleet.text.silent:.0f}s",
            "distributed.admin.system-monitor.interval": "10s",
            "distributed.admin.system-monitor.disk": False,
        }
    )
    logging.getLogger("distributed").setLevel(logging.ERROR)


def _security(fleet: Fleet, role: Role) -> Security:
    files = fleet.certificates(role)
    if files is None:
        return Security(require_encryption=False)
    pair: Json = {"cert": str(files.certificate), "key": str(files.key)}
    dask_role = {"head": "scheduler"}.get(role, role)
    return Security(
        require_encryption=True,
        tls_ca_file=str(files.ca),
        **{f"tls_{dask_role}_{name}": path for name, path in pair.items()},
    )


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
                "card": ws.extra.get(_CARD),
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
        return {address: ws.extra.get(_CARD) for address, ws in self.scheduler.workers.items()}


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
            security=_security(fleet, "head"),
            dashboard=self.shows,
            dashboard_address=f"{_LOOPBACK}:{fleet.text.dashboard_port}",
            plugins=[_Hosts()],
        )


class _Worker(Worker):  # type: ignore[misc]  # as above
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


def serve_head(fleet: Fleet, tell: Tell) -> None:
    """Be the head until a signal ends it. Raises InfrastructureError where it cannot listen."""
    _configure(fleet)

    async def serve() -> None:
        stop = _stopped()
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


def serve_worker(fleet: Fleet, host: UnitHost, card: Callable[[], HostCard], tell: Tell) -> None:
    """Do trials for a head until a signal ends it; whenever the head is lost, what runs is ended.

    `card` is asked whenever the head is joined. Raises InfrastructureError where it can not be at first.
    """
    _configure(fleet)
    files = fleet.certificates("worker")
    must_reach(fleet, files)

    async def serve() -> None:
        stop = _stopped()
        while not stop.is_set():
            with suppress(OSError, ValueError, TimeoutError):
                await _join(fleet, host, card(), tell, stop)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AGAIN_SECONDS)

    asyncio.run(serve())


async def _join(fleet: Fleet, host: UnitHost, card: HostCard, tell: Tell, stop: asyncio.Event) -> None:
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
        security=_security(fleet, "worker"),
        memory_limit=0,  # no part of Dask ends or halts anything for the memory that guests take
        nanny=None,
        plugins=(units,),
        startup_information={_CARD: lambda _: card.model_dump(mode="json")},
        death_timeout=fleet.text.silent,
    )
    host.tell = lambda key, line: worker.loop.add_callback(worker.log_event, _topic(key), [host.name, line])
    serve_here(host)
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


def _topic(key: str) -> str:
    """Of what is said of a run's trials."""
    return f"orchestrator/{key.partition('/')[0]}"


def _stopped() -> asyncio.Event:
    """Set by SIGINT, SIGTERM or SIGHUP."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


class _Units(WorkerPlugin):  # type: ignore[misc]  # as above
    """Ends the process of a trial that is not wanted any more."""

    name = "orchestrator"

    def __init__(self, host: UnitHost) -> None:
        self.host = host

    def transition(self, key: Key, start: str, finish: str, **_: Any) -> None:
        if start in {"executing", "long-running"} and finish == "released":
            self.host.end(str(key))

    def teardown(self, **_: object) -> None:
        self.host.end_all()


def ask_status(fleet: Fleet) -> Json:
    """What the head says of hosts and runs. Raises InfrastructureError."""
    _configure(fleet)
    must_reach(fleet, fleet.certificates("client"))

    async def ask() -> Json:
        security = _security(fleet, "client")
        async with rpc(fleet.text.head, connection_args=security.get_connection_args("client")) as head:
            answer: Json = await asyncio.wait_for(head.orchestrator_status(), _CONNECT_SECONDS)
            return answer

    try:
        return asyncio.run(ask())
    except (OSError, TimeoutError) as error:
        raise InfrastructureError(f"the head of the fleet does not answer: {error}") from None


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
        _configure(self._fleet)
        must_reach(self._fleet, self._fleet.certificates("client"))
        try:
            self._client = Client(
                self._fleet.text.head,
                security=_security(self._fleet, "client"),
                timeout=_CONNECT_SECONDS,
                set_as_default=False,
                direct_to_workers=False,
                name=f"orchestrator-{self._run}",
            )
        except (OSError, TimeoutError) as error:
            raise InfrastructureError(f"the head of the fleet does not answer: {error}") from None
        self._client.subscribe_topic(_topic(self._run), self._said)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self._client.close(timeout=_CONNECT_SECONDS)

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
        why = future.exception(timeout=_CONNECT_SECONDS) if future.status == "error" else future.status
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
