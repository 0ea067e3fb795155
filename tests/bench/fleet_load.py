"""A fleet of very many hosts and trials that do nothing: what the head takes, and what a trial costs.

    python tests/bench/fleet_load.py HOSTS TRIALS [PROCESSES]

The head, the client and the workers are the real ones, with TLS over loopback. Workers share a few
processes, and the unit is one that gives an empty folder at once. Prints one JSON object: bytes and seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from orchestrator.fleet.archive import pack
from orchestrator.fleet.card import HostCard, this_program
from orchestrator.fleet.certificates import make_fleet
from orchestrator.fleet.config import Fleet, load_fleet
from orchestrator.fleet.dispatch import Arrival, Dispatcher, Handed
from orchestrator.fleet.engine.client import DaskHands
from orchestrator.fleet.engine.settings import configure
from orchestrator.fleet.engine.worker import join
from orchestrator.fleet.needs import Needs
from orchestrator.fleet.unit import Answer, Order, UnitHost, serve_here
from orchestrator.plan import PlannedTrial
from orchestrator.run.rounds import Round
from orchestrator.scenario.model import Requires

_PORT = 8790
_ARMS = 4
_GIB = 1 << 30
_UP_SECONDS = 900


class Idle(UnitHost):
    """All hosts of this process: each trial is there at once."""

    packed: Answer

    def run(self, order: Order) -> Answer:
        del order
        return self.packed

    def keep_plan(self, sha256: str, compressed: bytes) -> None:
        del sha256, compressed


def idle(folder: Path) -> Idle:
    host = Idle("many", "many", this_program(), folder, folder)
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "empty" / "unit.json").write_text("{}")
    packed = pack(folder / "empty", 1 << 20)
    host.packed = {"made": True, "sha256": packed.sha256, "data": packed.data}
    return host


def card(name: str) -> HostCard:
    return HostCard(
        name=name,
        token=name,
        program=this_program(),
        memory=64 * _GIB,
        cores=2,
        disk=64 * _GIB,
        kvm="",
        second_level="EPT",
        nested=False,
        architecture="x86_64",
        kernel="6.12",
        cpu="played",
    )


async def workers(fleet: Fleet, first: int, count: int, folder: Path) -> None:
    """So many workers in this process, until it is ended."""
    configure(fleet)
    host = idle(folder)
    stop = asyncio.Event()
    limit = asyncio.Semaphore(8)  # of handshakes at once

    async def one(number: int) -> None:
        named = Idle(f"h{number}", f"h{number}", host.program, folder, folder)
        named.packed = host.packed
        async with limit:
            joined = asyncio.ensure_future(join(fleet, named, card(named.name), lambda _: None, stop))
            await asyncio.sleep(0.2)
        await joined

    serve_here(host)
    await asyncio.gather(*(one(number) for number in range(first, first + count)))


def main(hosts: int, trials: int, processes: int) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_fleet(folder / "keys")
        path = folder / "keys" / "fleet.toml"
        text = path.read_text().replace("127.0.0.1:8786", f"127.0.0.1:{_PORT}")
        path.write_text(text.replace("# worker_port = 8788", "worker_port = 0"))
        fleet = load_fleet(path)
        environ = {**os.environ, "MALLOC_ARENA_MAX": "2"}
        head = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "fleet", "head", "--fleet", str(path)], env=environ
        )
        running = [head]
        try:
            _wait_for(head)
            empty = psutil.Process(head.pid).memory_info().rss
            share = -(-hosts // processes)
            for first in range(0, hosts, share):
                count = min(share, hosts - first)
                words = ["serve", str(path), str(first), str(count), str(folder)]
                running.append(subprocess.Popen([sys.executable, __file__, *words], env=environ))
            found = measured(fleet, hosts, trials, head.pid) | {"head_alone_bytes": empty}
            sys.stdout.write(json.dumps(found) + "\n")
        finally:
            for process in running:
                process.kill()
                process.wait()


def _wait_for(head: subprocess.Popen[bytes]) -> None:
    """Until it listens."""
    end = time.monotonic() + _UP_SECONDS
    while not psutil.Process(head.pid).net_connections():
        assert time.monotonic() < end
        assert head.poll() is None
        time.sleep(0.2)
    time.sleep(1)


def measured(fleet: Fleet, hosts: int, trials: int, pid: int) -> dict[str, object]:
    head = psutil.Process(pid)
    rounds = [
        Round(
            repeat,
            tuple(
                PlannedTrial(id=f"{arm}-{repeat}", arm=arm, repeat=repeat, order=1, seed=1, steps=())
                for arm in "abcd"[:_ARMS]
            ),
        )
        for repeat in range(1, trials // _ARMS + 1)
    ]
    needs = dict.fromkeys("abcd"[:_ARMS], Needs(_GIB, 1, 0, exclusive=True, kvm=False, requires=Requires()))
    came = 0

    def accept(arrival: Arrival, handed: Handed) -> str:
        nonlocal came
        del handed
        came += arrival.packed is not None
        return "" if arrival.packed else "nothing came"

    class Quiet:
        def note(self, text: str) -> None:
            """Not shown."""

        trial = trial_done = step = step_done = lambda *_: None

    hands = DaskHands(fleet, "load", "{}", plan_sha256="0", program=this_program(), note=lambda _: None)
    with hands:
        began = time.monotonic()
        while len(hands.hosts()) < hosts:
            assert time.monotonic() - began < _UP_SECONDS, f"{len(hands.hosts())} hosts"
            time.sleep(1)
        joined = time.monotonic() - began
        before, before_cpu = head.memory_info().rss, sum(head.cpu_times()[:2])
        own_cpu, began = time.process_time(), time.monotonic()
        dispatcher = Dispatcher(
            rounds, needs, hands, accept, Quiet(), program=this_program(), retries=0, wait_seconds=60
        )
        largest = 0
        for ended, _ in enumerate(dispatcher.run(), start=1):
            if ended % 100 == 0:
                largest = max(largest, head.memory_info().rss)
        seconds = time.monotonic() - began
        return {
            "hosts": hosts,
            "trials": came,
            "joined_seconds": round(joined, 1),
            "head_with_hosts_bytes": before,
            "head_most_bytes": max(largest, head.memory_info().rss),
            "seconds_per_trial": round(seconds / came, 5),
            "head_cpu_seconds_per_trial": round((sum(head.cpu_times()[:2]) - before_cpu) / came, 5),
            "client_cpu_seconds_per_trial": round((time.process_time() - own_cpu) / came, 5),
            "client_most_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(
            workers(load_fleet(Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
        )
    else:
        main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2)
