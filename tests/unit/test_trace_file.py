"""Trace files: there and back, and everything that can be wrong with one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import BadInputError
from orchestrator.model.patterns import pattern_named
from orchestrator.model.trace import Trace
from orchestrator.store import trace_file
from orchestrator.store.trace_file import read_trace, write_trace


@pytest.fixture
def trace() -> Trace:
    """A few thousand events."""
    parameters = {"span": "1GiB", "touches": 1000}
    return pattern_named("jemalloc", parameters).trace(np.random.default_rng(0))


def test_there_and_back(trace: Trace, tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", trace)
    back = read_trace(tmp_path / "t.npz")
    assert (back.name, back.tables, back.assumption) == (trace.name, trace.tables, trace.assumption)
    assert (back.table == trace.table).all()
    assert (back.kind == trace.kind).all()


def test_another_version(trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "_KIND", replace(trace_file._KIND, reads=(2,)))
    write_trace(tmp_path / "t.npz", trace)
    monkeypatch.undo()
    with pytest.raises(BadInputError, match=r"a trace of schema \[2\], this program reads 1"):
        read_trace(tmp_path / "t.npz")


def test_what_is_no_trace(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    with pytest.raises(BadInputError, match="cannot be read"):
        read_trace(path)
    path.write_bytes(b"PK no zip")
    with pytest.raises(BadInputError, match="not a trace, or damaged"):
        read_trace(path)
    write_trace(path, trace)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInputError, match="not a trace, or damaged"):
        read_trace(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(BadInputError, match="says no schema version"):
        read_trace(path)
    with pytest.raises(ValueError, match="0 tables"):
        write_trace(path, Trace("none", 0, trace.table, trace.kind))
