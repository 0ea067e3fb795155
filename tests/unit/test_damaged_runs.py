"""Run folders with damaged files: each verb that reads one ends with an error that names the file, or shows a
gap, and never with a fault of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import write_run

from orchestrator.cli import main
from orchestrator.summary import refresh

VERBS = (("show", "--json"), ("report",), ("compare",))
SUFFIXES = ("*.npz", "*.parquet", "*.jsonl", "*.json", "*.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two arms and snapshots, and all that is made of it."""
    run = write_run(tmp_path_factory.mktemp("whole"), "r-1")
    refresh(run)
    return run


def _cut(data: bytes, chance: np.random.Generator) -> bytes:
    return data[: chance.integers(len(data))]


def _flip(data: bytes, chance: np.random.Generator) -> bytes:
    where = chance.integers(len(data))
    return data[:where] + bytes([data[where] ^ (1 << int(chance.integers(8)))]) + data[where + 1 :]


def _zeros(data: bytes, chance: np.random.Generator) -> bytes:
    """What a file system leaves of a file whose data it had not written at a power cut."""
    where = int(chance.integers(len(data)))
    return data[:where] + bytes(min(4096, len(data) - where)) + data[where + 4096 :]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", [_cut, _flip, _zeros, lambda data, _: b""])
def test_damage_is_told_or_is_a_gap(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    damage: Callable[[bytes, np.random.Generator], bytes],
) -> None:
    chance = np.random.default_rng(17)
    run = shutil.copytree(whole, tmp_path / "r-1")
    files = sorted(path for path in run.rglob(suffix) if path.stat().st_size)
    victim = files[chance.integers(len(files))]
    victim.write_bytes(damage(victim.read_bytes(), chance))
    for verb in VERBS:
        with pytest.raises(SystemExit) as end:
            main([*verb, str(run)])
        said = capsys.readouterr().err
        where = f"{verb} with {victim.relative_to(run)}: {said[-2000:]}"
        assert end.value.code in {0, 1, 2}, where
        assert end.value.code != 2 or victim.name in said, where
