"""What workloads print and leave in a guest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import ClassVar

from orchestrator.metric import COST_PHASES
from orchestrator.workloads import integrity, page_table_bench, program, redis, second_level_bench
from targets.base import TARGETS, Target

_RESULT = b'{"figures": {"rounds": 1, "checked_bytes": 4096, "findings": 0}, "findings": [{"kind": "wrong", "text": "a"}]}'
_REDIS = b'"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms"\n"SET","9","1","1","1","1","2"\n'
_ROUNDS = {
    "unit": "instructions",
    **dict.fromkeys(("ranges", "pages", "cpu"), 4),
    **dict.fromkeys((f"page_table_bytes_{when}" for when in ("mapped", "touched", "discarded")), 4096),
    "rounds": {phase: [1, 2] for phase in COST_PHASES},
    "warm_up": {phase: [3] for phase in COST_PHASES},
}
_SECOND = {
    **dict.fromkeys(second_level_bench._COUNTS, 4),
    "rounds": {phase: [1, 2] for phase in second_level_bench.PHASES},
    **{what: dict.fromkeys(second_level_bench.PHASES, 3) for what in ("exits", "faults")},
}
_READERS: tuple[tuple[Callable[[str], object], bytes], ...] = (
    (integrity.parse_result, _RESULT),
    (
        lambda text: page_table_bench.parse_rounds(text, unit="instructions", rounds=2, warm_up=1),
        json.dumps(_ROUNDS).encode(),
    ),
    (lambda text: second_level_bench.parse_rounds(text, rounds=2), json.dumps(_SECOND).encode()),
    (lambda text: program.parse_report(text, ("a_bytes",)), b'{"pid": 7, "a_bytes": 4096}'),
    (redis.parse_benchmark, _REDIS),
)


@TARGETS.register("workload-output")
class WorkloadOutput(Target):
    """The first byte of an input says whose output it is."""

    name: ClassVar = "workload-output"
    executions: ClassVar = 350_000
    most_bytes: ClassVar = 3_000
    tokens: ClassVar = (
        '"figures":',
        '"findings":',
        '"rounds":',
        '"warm_up":',
        '"kind":',
        '"text":',
        "1e999",
        "NaN",
    )
    designed: ClassVar = (ValueError,)  # what the drivers turn into a CommandError, with the text

    def seeds(self) -> Iterator[bytes]:
        yield from (bytes([number]) + text for number, (_, text) in enumerate(_READERS))

    def feed(self, data: bytes) -> None:
        read, _ = _READERS[(data[0] if data else 0) % len(_READERS)]
        read(data[1:].decode(errors="replace"))
