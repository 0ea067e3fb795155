"""libcachesim, an independent simulator of caches, and traces that both read."""

from __future__ import annotations

from pathlib import Path

import libcachesim
import numpy as np

from orchestrator.model.snapshot import U32
from orchestrator.model.trace import TouchKind, Trace

TABLES = 300_000  # of a dense guest of 586 GiB
TOUCHES = 1_000_000
BUDGETS = (15_000, 60_000, 200_000)  # tables
PATTERNS = ("uniform", "zipf", "scan")
OTHERS = {
    "fifo": libcachesim.FIFO,
    "lru": libcachesim.LRU,
    "clock": libcachesim.Clock,  # its defaults: one bit, clear when an object comes
    "belady": libcachesim.Belady,
}

# oracleGeneral: seconds, id, size, index of the next request of it (negative: none).
_RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])


def touches_only(name: str, tables: int, table: U32) -> Trace:
    """A trace in which nothing is unmapped."""
    return Trace(name, tables, table, np.full(len(table), TouchKind.TOUCH, dtype=np.uint8))


def shared_trace(pattern: str, touches: int = TOUCHES, tables: int = TABLES, seed: int = 7) -> Trace:
    """Uniform; Zipf with exponent 1 over shuffled ids; or Zipf with a scan over everything now and then."""
    rng = np.random.default_rng(seed)
    if pattern == "uniform":
        return touches_only(pattern, tables, rng.integers(0, tables, touches).astype(np.uint32))
    weight = np.cumsum(1 / np.arange(1, tables + 1))
    ranks = np.searchsorted(weight, rng.random(touches) * weight[-1])
    table = rng.permutation(tables)[ranks].astype(np.uint32)
    if pattern == "scan":
        for start in range(touches // 10, touches - tables, touches // 3):
            table[start : start + tables] = np.arange(tables)
    return touches_only(pattern, tables, table)


def write_requests(trace: Trace, path: Path) -> Path:
    """`trace` as a file that libcachesim reads; every object has size 1."""
    events = len(trace)
    record = np.zeros(events, dtype=_RECORD)
    record["id"] = trace.table
    record["size"] = 1
    order = np.argsort(trace.table, kind="stable")
    same = trace.table[order][1:] == trace.table[order][:-1]
    following = np.full(events, -1, dtype=np.int64)
    following[order[:-1][same]] = order[1:][same]
    record["next"] = following
    record["time"] = np.arange(events) // 1000
    record.tofile(path)
    return path


DEFAULT_TABLE = 24  # libcachesim's hash table has 2**24 places unless it is told otherwise
TUNED_TABLES = (16, 18)  # what suits 15,000 to 200,000 objects: up to seven times as fast


def their_misses(
    policy: str, requests: Path, events: int, budget_tables: int, *, hashpower: int = TUNED_TABLES[-1]
) -> int:
    """Misses that libcachesim counts."""
    reader = libcachesim.TraceReader(
        str(requests),
        trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE,
        reader_init_params=libcachesim.ReaderInitParam(ignore_obj_size=True),
    )
    cache = OTHERS[policy](budget_tables, hashpower=hashpower, reader=reader)
    ratio, _ = cache.process_trace(reader)
    misses = float(ratio) * events
    assert abs(misses - round(misses)) < 1e-3, "a ratio that is no whole number of misses"
    return round(misses)
