"""Redis, loaded and mostly emptied again: what an allocator leaves mapped."""

from __future__ import annotations

import csv
from typing import Annotated

from pydantic import Field

from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError, CommandTimeoutError
from orchestrator.guest.shell import GuestShell
from orchestrator.units import Size
from orchestrator.workloads.base import DRIVERS, WorkloadDriver, WorkloadResult
from orchestrator.workloads.malloc_conf import MallocConf, malloc_conf_text

CONFIGURATION = "/etc/redis/workload.conf"  # written by playbooks/guest.yaml

# redis-benchmark -r N writes key:000000000000 .. key:(N-1). UNLINK frees in another thread, as a
# server in use would.
_DELETE = """\
local gone = 0
for i = 0, tonumber(ARGV[1]) - 1 do
  if i % tonumber(ARGV[2]) ~= 0 then
    gone = gone + redis.call('UNLINK', string.format('key:%012d', i))
  end
end
return gone
"""


@DRIVERS.register("redis")
class Redis(WorkloadDriver):
    """Load random keys with redis-benchmark, then delete most of them."""

    keys: Annotated[int, Field(ge=1, le=100_000_000)]
    requests: Annotated[int, Field(ge=1, le=1_000_000_000)]
    clients: Annotated[int, Field(ge=1, le=1000)] = 10
    value: Size
    keep_one_in: Annotated[int, Field(ge=1)]
    malloc_conf: Annotated[MallocConf, Field(default_factory=dict)]

    @property
    def processes(self) -> tuple[str, ...]:
        return ("redis-server",)

    def start(self, shell: GuestShell, *, seed: int, deadline: Deadline) -> dict[str, float]:
        given = ["env", f"MALLOC_CONF={malloc_conf_text(self.malloc_conf)}"] if self.malloc_conf else []
        server = [*given, "redis-server", CONFIGURATION]
        shell.run(server, seconds=deadline.remaining, oom_score_adj=self.oom_score_adj)
        self._wait_until_up(shell, deadline)
        load = ["redis-benchmark", "-t", "set", "-n", str(self.requests), "-r", str(self.keys)]
        load += ["-d", str(self.value), "-c", str(self.clients), "--seed", str(seed % 2**31), "--csv"]
        measured = parse_benchmark(shell.run(load, seconds=deadline.remaining).text)
        stored = self._number(shell, ["DBSIZE"], deadline)
        delete = ["EVAL", _DELETE, "0", str(self.keys), str(self.keep_one_in)]
        deleted = self._number(shell, delete, deadline)
        return {**measured, "keys_stored": stored, "keys_deleted": deleted}

    def stop(self, shell: GuestShell, *, deadline: Deadline) -> WorkloadResult:
        shell.run(["redis-cli", "SHUTDOWN", "NOSAVE"], seconds=deadline.remaining, check=False)
        while shell.run(["pidof", "redis-server"], seconds=deadline.remaining, check=False).code == 0:
            if deadline.expired:
                raise CommandTimeoutError("redis-server did not end")
        return WorkloadResult()

    def _wait_until_up(self, shell: GuestShell, deadline: Deadline) -> None:
        while "PONG" not in shell.run(["redis-cli", "PING"], seconds=deadline.remaining, check=False).text:
            if deadline.expired:
                raise CommandTimeoutError("redis-server does not answer")

    @staticmethod
    def _number(shell: GuestShell, words: list[str], deadline: Deadline) -> float:
        text = shell.run(["redis-cli", *words], seconds=deadline.remaining).text.strip()
        if not text.isdecimal():
            raise CommandError(f"redis-cli {words[0]} did not answer with a number", details=text[:500])
        return float(text)


def parse_benchmark(text: str) -> dict[str, float]:
    """What `redis-benchmark --csv` measured: requests per second, latencies in seconds.

    Raises CommandError when the text has no such table.
    """
    try:
        (row,) = csv.DictReader(text.splitlines())
        return {
            "ops_per_second": float(row["rps"]),
            "p50_seconds": float(row["p50_latency_ms"]) / 1000,
            "p99_seconds": float(row["p99_latency_ms"]) / 1000,
        }
    except (ValueError, KeyError, TypeError, csv.Error):
        raise CommandError("redis-benchmark printed no result", details=text[:500]) from None
