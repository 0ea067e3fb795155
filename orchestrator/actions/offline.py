"""Taking Linux memory blocks offline inside the guest, and bringing them back: `offline`, `online`.

guests/programs/memory-blocks.c does it and prints a line for each block. The times are its own,
counted from its beginning, which is some tenths of a second after the request under emulation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import StepContext
from orchestrator.actions.curve import Curve
from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError
from orchestrator.host.machine import MEMORY_BLOCK_BYTES, Machine
from orchestrator.records.step import Direction, Effect, Mechanism, StepOutcome, StepResult
from orchestrator.units import GIB, Duration, Size, format_size, write_size

_PROGRAM = "/usr/local/bin/memory-blocks"
# Beside the time for the blocks: ssh, and a guest that is busy with what it just moved.
_ANSWER_SECONDS = 60.0

_HEAD = re.compile(r"blocks ([0-9]{1,12}) ([0-9]{1,7})")
_LINE = re.compile(r"([0-9]{1,9}) ([0-9]{1,7}\.[0-9]{3}) ([A-Z][A-Z0-9]{1,20}) ([0-9]{1,18})")
_END = re.compile(r"end (enough|all|time)")


@dataclass(frozen=True)
class Block:
    """How one memory block went: `result` is `OK` or the name of an errno."""

    seconds: float
    result: str
    done_bytes: int  # by then, of all blocks


@dataclass(frozen=True)
class Blocks:
    """What memory-blocks printed, checked. `end` is why it ended: `enough`, `all` or `time`."""

    block_bytes: int
    count: int
    tried: tuple[Block, ...]
    end: str

    @property
    def done_bytes(self) -> int:
        """Bytes of the blocks that went."""
        return self.tried[-1].done_bytes if self.tried else 0


def read_blocks(text: str) -> Blocks:
    """Read the program's output. Raises CommandError where it makes no sense: it is a guest's text."""
    lines = text.splitlines()
    head, end = (_HEAD.fullmatch(lines[0]), _END.fullmatch(lines[-1])) if lines else (None, None)
    if head is None or end is None:
        raise _nonsense(text[:80])
    block, count = int(head[1]), int(head[2])
    # memory_block_size_bytes() is a power of two of at least a section, 128 MiB (arch/x86/mm/init_64.c).
    if not 0 < block <= 64 * GIB or len(lines) - 2 > count:
        raise _nonsense(lines[0])
    tried: list[Block] = []
    seconds, done = 0.0, 0
    for line in lines[1:-1]:
        found = _LINE.fullmatch(line)
        if found is None or float(found[2]) < seconds:
            raise _nonsense(line[:80])
        seconds, done = float(found[2]), done + (block if found[3] == "OK" else 0)
        if int(found[4]) != done:
            raise _nonsense(line)
        tried.append(Block(seconds, found[3], done))
    return Blocks(block, count, tuple(tried), end[1])


def _nonsense(line: str) -> CommandError:
    return CommandError("what the guest says of its memory blocks makes no sense", details=line)


def _result(blocks: Blocks, requested_ns: int, wanted: int, **values: float) -> StepResult:
    """How it went; `wanted` bytes were asked for."""
    achieved, curve = blocks.done_bytes, Curve(requested_ns)
    for block in blocks.tried:
        if block.result == "OK":
            curve.add(requested_ns + round(block.seconds * 1e9), block.done_bytes)
    results = Counter(block.result for block in blocks.tried)
    failed = {result: count for result, count in results.items() if result != "OK"}
    if achieved >= wanted:
        outcome = StepOutcome.DONE
    elif blocks.end == "time":
        outcome = StepOutcome.TIMEOUT
    else:
        outcome = StepOutcome.PARTIAL if achieved else StepOutcome.REFUSED
    times = [requested_ns + round(block.seconds * 1e9) for block in blocks.tried]
    return StepResult(
        outcome,
        requested_ns=requested_ns,
        acknowledged_ns=times[0] if times else None,
        settled_ns=times[-1] if times and outcome is not StepOutcome.TIMEOUT else None,
        values={
            "requested_bytes": wanted,
            "achieved_bytes": achieved,
            "shortfall_bytes": max(0, wanted - achieved),
            "block_bytes": blocks.block_bytes,
            "blocks_tried": len(blocks.tried),
            "blocks_refused": failed.get("EBUSY", 0),
            "blocks_timed_out": failed.get("EINTR", 0),
            "blocks_failed": sum(count for name, count in failed.items() if name not in {"EBUSY", "EINTR"}),
            **values,
        },
        curve=curve.points,
        message=", ".join(f"{name} {count}" for name, count in sorted(failed.items())),
    )


@ACTIONS.register("offline")
class Offline(Action):
    """Take memory blocks offline inside the guest, one by one, until there are enough.

    The memory stays the guest's: nothing goes back to the host but what free page reporting gives.
    It is what ejecting a DIMM begins with, and shows which blocks could go. A block with a hole in it,
    as the firmware leaves in the first and the last one of boot memory, is refused with EINVAL.
    """

    effect: ClassVar = Effect(Mechanism.MEMORY_BLOCK, direction=Direction.TAKE)

    by: Size
    """How much to take offline, in whole memory blocks of 128MiB."""
    per_block: Duration = 5.0
    """How long to try each block. The kernel itself would try for ever (EINTR), unless it finds at
    once what cannot be moved (EBUSY)."""
    timeout: Duration = 300.0
    """How long it may take at the most, all blocks together."""
    order: Literal["highest", "lowest"] = "highest"
    """Which block to begin with: that at the highest address, or at the lowest."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        if not 0 < self.by < machine.maximum_memory:
            wrong = f"{write_size(self.by)} of {write_size(machine.maximum_memory)} cannot be taken offline"
            yield FieldProblem("by", wrong, f"ask for less than {write_size(machine.maximum_memory)}")
        if self.by % MEMORY_BLOCK_BYTES:
            wrong = f"{write_size(self.by)} is no whole number of memory blocks"
            yield FieldProblem("by", wrong, f"use a multiple of {write_size(MEMORY_BLOCK_BYTES)}")
        if self.per_block < 0.001:  # the program counts milliseconds
            yield FieldProblem("per_block", "a block needs some time", "give it at least 1ms")

    def describe(self) -> str:
        return f"take {format_size(self.by)} offline"

    def unplugs_by(self, machine: Machine) -> int | None:  # noqa: ARG002  # the same for every machine
        return MEMORY_BLOCK_BYTES

    def run(self, trial: StepContext) -> StepResult:
        requested_ns = trial.now_ns()
        argv = [_PROGRAM, "offline", str(self.by), _ms(self.per_block), _ms(self.timeout), self.order]
        text = trial.execute(argv, Deadline(self.timeout + _ANSWER_SECONDS))
        blocks = read_blocks(text)
        before = blocks.count * blocks.block_bytes
        return _result(
            blocks,
            requested_ns,
            self.by,
            size_before_bytes=before,
            size_after_bytes=before - blocks.done_bytes,
        )


@ACTIONS.register("online")
class Online(Action):
    """Bring all memory blocks back that are offline in the guest, from the lowest address up."""

    effect: ClassVar = Effect(Mechanism.MEMORY_BLOCK, direction=Direction.GIVE)

    timeout: Duration = 120.0
    """How long it may take at the most."""

    def describe(self) -> str:
        return "bring memory blocks online"

    def run(self, trial: StepContext) -> StepResult:
        requested_ns = trial.now_ns()
        argv = [_PROGRAM, "online", _ms(self.timeout)]
        blocks = read_blocks(trial.execute(argv, Deadline(self.timeout + _ANSWER_SECONDS)))
        return _result(blocks, requested_ns, blocks.count * blocks.block_bytes)


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
