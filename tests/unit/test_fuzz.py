"""Inputs that were found by fuzzing, given again to what they broke; and the oracle that tells a fault."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import oracle
import pytest
import targets
from targets.base import TARGETS, Target, scratch

from orchestrator.errors import BadInputError, InfrastructureError

HERE = Path(oracle.__file__).parent
CRASHES = sorted((HERE / "crashes").glob("*/*"))


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_broke_it_once_does_so_no_more(path: Path) -> None:
    assert oracle.execute(_made(path.parent.name), path.read_bytes()) is None


@pytest.mark.parametrize("name", [name for name, kind in TARGETS if kind.name != "run-folder"])
def test_a_target_has_seeds_that_it_reads(name: str) -> None:
    target = _made(name)
    first = next(iter(target.seeds()))
    assert TARGETS[name].name == name
    assert TARGETS[name].executions > 0
    assert oracle.execute(target, first[: target.most_bytes]) is None


_MADE: dict[str, Target] = {}


def _made(name: str) -> Target:
    if name not in _MADE:
        _MADE[name] = TARGETS[name]()
    return _MADE[name]


class Breaks(Target):
    """Does what its input says."""

    name: ClassVar = "breaks"
    executions: ClassVar = 1
    seconds: ClassVar = 0.2
    designed: ClassVar = (LookupError,)

    def seeds(self) -> Iterator[bytes]:
        yield b""

    def feed(self, data: bytes) -> None:  # noqa: C901  # one thing for each word
        match data:
            case b"bad":
                raise BadInputError("no such thing")
            case b"lookup":
                raise KeyError("documented")
            case b"silent":
                raise InfrastructureError("")
            case b"value":
                raise ValueError("not documented")
            case b"recursion":
                self.feed(data)
            case b"memory":
                assert len(bytearray(oracle.MOST_MEMORY + (64 << 20))) > 0
            case b"slow":
                until = time.process_time() + 0.4
                while time.process_time() < until:
                    pass
            case b"inside":
                (scratch() / "x").write_text("x")
            case b"outside":
                (scratch() / ".." / "fuzz-outside").touch()
            case b"link":
                link = scratch() / "out"
                link.unlink(missing_ok=True)
                link.symlink_to(scratch().parent / "fuzz-outside")
                link.write_text("x")
            case b"start":
                subprocess.run(["true"], check=True)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        *((data, "") for data in (b"", b"bad", b"lookup", b"inside")),
        *((b"silent", "empty error"), (b"value", "ValueError"), (b"recursion", "RecursionError")),
        *(
            (b"slow", "slow"),
            (b"outside", "writes outside"),
            (b"link", "writes outside"),
            (b"start", "writes outside"),
        ),
    ],
)
def test_the_oracle_tells_a_fault(data: bytes, kind: str) -> None:
    fault = oracle.execute(Breaks(), data)
    (scratch().parent / "fuzz-outside").unlink(missing_ok=True)
    assert (fault.kind if fault else "") == kind


@pytest.mark.slow
def test_the_oracle_tells_what_takes_too_much_memory() -> None:
    # In a process of its own: the peak of this one may be above that already.
    code = (
        "import oracle, test_fuzz\n"
        "test_fuzz.Breaks.seconds = 60\n"  # to touch that much takes long on a busy machine
        "print(oracle.execute(test_fuzz.Breaks(), b'memory').kind)"
    )
    path = os.pathsep.join((str(HERE), str(Path(__file__).parent), str(HERE.parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "memory"


def test_one_file_is_one_target() -> None:
    files = {path.stem for path in Path(str(targets.__file__)).parent.glob("[a-z]*.py")} - {"base"}
    assert len(files) == len(TARGETS.names())
    assert {kind.__module__.removeprefix("targets.") for _, kind in TARGETS} == files
