"""A sweep whose points the hosts of a fleet compute: Dask says where, since each gives the same anywhere."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from distributed import Future

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.fleet.card import HostCard, this_program
from orchestrator.fleet.config import Fleet
from orchestrator.fleet.engine.connection import Connection
from orchestrator.fleet.engine.settings import CONNECT_SECONDS, Tell
from orchestrator.fleet.sweep_unit import (
    PointOrder,
    keep_trace,
    rows_of,
    run_point,
    trace_bytes,
    trace_sha256,
    with_trace_by_hash,
)
from orchestrator.sweep import Engine, Row, SweepTask
from orchestrator.sweep.tasks import task_to_json

_LOOK_SECONDS: Final = 0.5
_TELL_SECONDS: Final = 2.0


class OnFleet(Engine):
    """Computes points on the hosts that are there when it begins, and have this program."""

    def __init__(self, fleet: Fleet, name: str, note: Tell) -> None:
        """`name` is the sweep's; `note` takes lines for people."""
        self._fleet, self._name, self._note = fleet, name, note

    def run(self, tasks: Sequence[SweepTask]) -> Iterator[tuple[int, list[Row]]]:
        with Connection(self._fleet, self._name, again="begin the sweep again") as head:
            hosts = self._able(head)
            travelling = [with_trace_by_hash(task) for task in tasks]
            for trace in dict.fromkeys(path for _, path in travelling if path):
                self._send(head, trace, hosts)
            points = _Points(head, self._name, list(hosts), [task for task, _ in travelling])
            try:
                yield from points.run()
            finally:
                points.end()

    def _able(self, head: Connection) -> Mapping[str, HostCard]:
        """The hosts that may. Raises InfrastructureError where there is none, and BadInputError where all
        have another program."""
        wait = Deadline(self._fleet.text.wait)
        cards = wait_for(lambda: head.hosts() or None, wait, every=_LOOK_SECONDS)
        if cards is None:
            raise InfrastructureError(
                f"no host has joined {self._fleet.text.head}",
                hint=f"on each:   orchestrator worker {self._fleet.text.head} --fleet fleet.toml",
            )
        able, others = {}, []
        for address, card in cards.items():
            if differences := this_program().differences(card.program):
                others.append(f"{card.name}: {'; '.join(differences)}")
            else:
                able[address] = card
        if not able:
            raise BadInputError("no host has this program", details="\n".join(others))
        for other in others:
            self._note(f"not used, with another program: {other}")
        return able

    def _send(self, head: Connection, trace: Path, hosts: Mapping[str, HostCard]) -> None:
        sha256, data = trace_sha256(trace), trace_bytes(trace)
        for address, card in hosts.items():
            if why := head.call_there(address, keep_trace, sha256, data):
                raise InfrastructureError(f"{trace} could not be sent to {card.name}: {why}")


class _Points:
    """The tasks of one sweep. One whose host has gone is given to another, as often as trials are."""

    def __init__(self, head: Connection, name: str, addresses: list[str], tasks: Sequence[SweepTask]) -> None:
        self._head, self._name, self._addresses = head, name, addresses
        self._orders = [PointOrder(program=this_program(), task=task_to_json(task)) for task in tasks]
        self._tag = secrets.token_hex(4)  # of this sweep, should the same run twice
        self._attempts = [0] * len(tasks)
        self._futures: dict[int, Future] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._began = self._reported_at = time.monotonic()
        self._alone_since = self._began

    def run(self) -> Iterator[tuple[int, list[Row]]]:
        """Number and rows of each, as they end."""
        for number in range(len(self._orders)):
            self._give(number)
        done = 0
        while self._futures:
            self._head.must_be_there()
            self._must_have_hosts()
            try:
                number = self._ended.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            rows = self._came(number)
            if rows is not None:
                done += 1
                self._tell(done)
                yield number, rows

    def end(self) -> None:
        """Take back what is not wanted any more."""
        with suppress(Exception):  # the head may be what has gone
            self._head.client.cancel(list(self._futures.values()), force=True)

    def _give(self, number: int) -> None:
        self._attempts[number] += 1
        order = self._orders[number].to_json()
        future = self._head.ask(
            lambda: self._head.client.submit(
                run_point,
                order,
                key=f"{self._name}-{self._tag}/point {number + 1}/{self._attempts[number]}",
                workers=self._addresses,
                resources={"cores": 1},
                priority=-number,
                pure=False,
            )
        )
        self._futures[number] = future
        future.add_done_callback(lambda _: self._ended.put(number))

    def _came(self, number: int) -> list[Row] | None:
        """Its rows; None where its host has gone, and another has been given it."""
        future = self._futures.pop(number)
        if future.status == "finished":
            return rows_of(self._head.ask(lambda: future.result(timeout=self._head.fleet.text.silent)))
        self._head.must_be_there()
        if self._attempts[number] > self._head.fleet.text.retries:
            why = future.exception(timeout=CONNECT_SECONDS) if future.status == "error" else future.status
            raise InfrastructureError(
                f"point {number + 1} was lost {self._attempts[number]} times with its host: {why}",
                hint="orchestrator fleet status",
            )
        self._give(number)
        return None

    def _must_have_hosts(self) -> None:
        now = time.monotonic()
        if any(address in self._head.hosts() for address in self._addresses):
            self._alone_since = now
        elif now - self._alone_since > self._head.fleet.text.wait:
            raise InfrastructureError(
                "no host of the sweep is left", hint="orchestrator fleet status   says which have joined"
            )

    def _tell(self, done: int) -> None:
        """What `fleet status` shows of it."""
        now, total = time.monotonic(), len(self._orders)
        if done < total and now - self._reported_at < _TELL_SECONDS:
            return
        self._reported_at = now
        left = (now - self._began) / done * (total - done)
        self._head.tell({"run": self._name, "done": done, "total": total, "seconds_left": left})
