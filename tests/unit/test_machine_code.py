"""Compiled code that is kept in files: found again by who would compile the same, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from orchestrator.model.jit import inlined, njit
from orchestrator.store.machine_code import KeptCode

STEP = 3


def _more(value: int) -> int:
    return value + STEP


def _called(function: Any, values: Any) -> int:
    total = 0
    for value in values:
        total += function(more(int(value)))
    return total


def _double(value: int) -> int:
    return 2 * value


def _triple(value: int) -> int:
    return 3 * value


more = inlined(_more)
VALUES = np.arange(4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "code"


@pytest.fixture
def called(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """What the function says of an inlined one, and how often that was found instead of compiled.

    Each call is by functions of its own, as in a process of its own.
    """
    monkeypatch.setattr("orchestrator.model.jit.COMPILED", [])

    def call(function: Callable[[int], int] = _double, values: Any = VALUES, **other: Any) -> tuple[int, int]:
        within = {**globals(), "more": inlined(FunctionType(_more.__code__, {**globals(), **other}))}
        compiled: Any = njit(FunctionType(_called.__code__, within))
        compiled._cache = KeptCode(compiled, folder)
        said = int(compiled(inlined(function), values))
        return said, sum(compiled.stats.cache_hits.values())

    return call


def test_it_is_found_by_another_and_says_the_same(
    called: Callable[..., tuple[int, int]], folder: Path
) -> None:
    assert [called() for _ in range(3)] == [(36, 0), (36, 1), (36, 1)]
    (kept,) = folder.iterdir()
    assert (kept.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.slow
def test_what_else_is_compiled_in_is_another_file(
    called: Callable[..., tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function as an argument, a constant of one that is inlined, a type, what a variable tells numba."""
    assert called() == (36, 0)
    assert called(_triple) == (54, 0)
    assert called(STEP=4) == (44, 0)
    assert called(values=VALUES.astype(np.int32)) == (36, 0)
    assert called(_triple, STEP=4) == (66, 0)
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert called() == (36, 0)
    monkeypatch.delenv("NUMBA_BOUNDSCHECK")
    assert [called(), called(_triple), called(STEP=4)] == [(36, 1), (54, 1), (44, 1)]


@pytest.mark.slow
def test_a_damaged_file_or_one_of_others_is_not_run(
    called: Callable[..., tuple[int, int]], folder: Path
) -> None:
    called()
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        kept.write_bytes(damaged)
        assert called() == (36, 0)
        assert called() == (36, 1), "it was written again"
    kept.chmod(0o620)
    assert called() == (36, 0)


def test_without_a_folder_that_can_be_written_to_each_compiles(
    called: Callable[..., tuple[int, int]], folder: Path
) -> None:
    folder.write_text("")
    assert [called(), called()] == [(36, 0), (36, 0)]


def test_what_has_no_name_in_another_process_is_not_kept(
    called: Callable[..., tuple[int, int]], folder: Path
) -> None:
    """A number of numpy's stands for any global that is not plain."""
    assert [called(STEP=np.int64(3)) for _ in range(2)] == [(36, 0), (36, 0)]
    assert not folder.exists()
