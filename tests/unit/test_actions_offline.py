"""Memory blocks taken offline by a program in the guest, whose output could be anything."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fakes import MACHINE, MIB, Clock, FakeDomain, FakeTrial
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.actions import ACTIONS, Action
from orchestrator.actions.offline import read_blocks
from orchestrator.errors import CommandError
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.units import GIB

SECOND_NS = 10**9
BLOCK = 128 * MIB
SOURCE = Path(__file__).parents[2] / "guests" / "programs" / "memory-blocks.c"


def action(name: str, **params: object) -> Action:
    return ACTIONS[name].model_validate(params)


def printed(*results: str, end: str = "all", count: int = 8) -> str:
    """What the program prints when a block takes half a second."""
    lines, done = [f"blocks {BLOCK} {count}"], 0
    for turn, result in enumerate(results, start=1):
        done += BLOCK if result == "OK" else 0
        lines.append(f"{40 - turn} {turn / 2:.3f} {result} {done}")
    return "\n".join([*lines, f"end {end}\n"])


def ended(text: str, name: str = "offline", **params: object) -> tuple[StepResult, FakeTrial]:
    trial = FakeTrial(FakeDomain(Clock()), printed=text)
    trial.domain.clock.seconds += 7
    result = action(name, **({"by": "512MiB"} if name == "offline" else {}), **params).run(trial)
    return result, trial


def test_enough_went() -> None:
    came, trial = ended(printed("OK", "EBUSY", "OK", "EINTR", "OK", "OK", end="enough"), timeout="90s")
    argv = ["/usr/local/bin/memory-blocks", "offline", str(512 * MIB), "5000", "90000", "highest"]
    assert trial.calls == [("execute", argv, 150)]
    assert came.outcome is StepOutcome.DONE
    assert came.values == {
        "requested_bytes": 512 * MIB,
        "achieved_bytes": 512 * MIB,
        "shortfall_bytes": 0,
        "size_before_bytes": GIB,
        "size_after_bytes": 512 * MIB,
        "block_bytes": BLOCK,
        "blocks_tried": 6,
        "blocks_refused": 1,
        "blocks_timed_out": 1,
        "blocks_failed": 0,
    }
    assert list(came.curve) == [(0, 0), (0.5, BLOCK), (1.5, 2 * BLOCK), (2.5, 3 * BLOCK), (3, 4 * BLOCK)]
    assert came.requested_ns == 7 * SECOND_NS
    assert (came.acknowledged_ns, came.settled_ns) == (7.5 * SECOND_NS, 10 * SECOND_NS)
    assert came.message == "EBUSY 1, EINTR 1"


@pytest.mark.parametrize(
    ("text", "outcome", "achieved", "message"),
    [
        (printed("OK", *["EBUSY"] * 7), StepOutcome.PARTIAL, BLOCK, "EBUSY 7"),
        (printed(*["EBUSY"] * 8), StepOutcome.REFUSED, 0, "EBUSY 8"),
        (printed(count=0), StepOutcome.REFUSED, 0, ""),
        (printed("OK", "EINTR", end="time"), StepOutcome.TIMEOUT, BLOCK, "EINTR 1"),
        (printed("EINVAL", "ENOMEM"), StepOutcome.REFUSED, 0, "EINVAL 1, ENOMEM 1"),
    ],
)
def test_too_little_went(text: str, outcome: StepOutcome, achieved: int, message: str) -> None:
    came, _ = ended(text, order="lowest")
    assert (came.outcome, came.values["achieved_bytes"], came.message) == (outcome, achieved, message)
    assert came.values["shortfall_bytes"] == 512 * MIB - achieved
    assert (came.settled_ns is None) == (outcome is StepOutcome.TIMEOUT or message == "")


def test_larger_blocks_than_asked_for_are_no_shortfall() -> None:
    came, _ = ended(f"blocks {2 * GIB} 3\n2 1.000 OK {2 * GIB}\nend enough\n")
    assert (came.outcome, came.values["achieved_bytes"]) == (StepOutcome.DONE, 2 * GIB)
    assert came.values["shortfall_bytes"] == 0


def test_all_come_back() -> None:
    came, trial = ended(printed("OK", "OK", count=2), "online")
    assert trial.calls == [("execute", ["/usr/local/bin/memory-blocks", "online", "120000"], 180)]
    assert (came.outcome, came.values["requested_bytes"]) == (StepOutcome.DONE, 2 * BLOCK)
    short, _ = ended(printed("OK", "EINVAL", count=2), "online")
    assert (short.outcome, short.values["shortfall_bytes"]) == (StepOutcome.PARTIAL, BLOCK)
    assert ended(printed(count=0), "online")[0].outcome is StepOutcome.DONE, "nothing was offline"


HEAD = f"blocks {BLOCK} 8"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        HEAD,
        f"{HEAD}\n7 0.500 OK {BLOCK}\n",  # it was cut off
        f"{HEAD}\nend later\n",
        f"blocks 0 8\n7 0.500 OK {BLOCK}\nend all\n",
        "blocks 999999999999 8\nend all\n",
        f"{HEAD}\n7 0.5 OK {BLOCK}\nend all\n",
        f"{HEAD}\n7 0.500 ok {BLOCK}\nend all\n",
        f"{HEAD}\n7 0.500 OK {2 * BLOCK}\nend all\n",  # more than went
        f"{HEAD}\n7 0.500 EBUSY {BLOCK}\nend all\n",
        f"{HEAD}\n7 -0.500 OK {BLOCK}\nend all\n",
        f"{HEAD}\n7 1.000 OK {BLOCK}\n6 0.500 OK {2 * BLOCK}\nend all\n",  # time runs backwards
        f"blocks {BLOCK} 1\n7 0.500 EBUSY 0\n6 0.500 EBUSY 0\nend all\n",  # more than there are
        f"{HEAD}\n7 0.500 \x1b[2J {BLOCK}\nend all\n",
        f"{HEAD}\n\N{ARABIC-INDIC DIGIT ONE} 0.500 OK {BLOCK}\nend all\n",
        "memory-blocks: not found",
    ],
)
def test_nonsense_of_a_guest_is_its_failure(text: str) -> None:
    with pytest.raises(CommandError, match="makes no sense") as refused:
        ended(text)
    assert len(refused.value.details) <= 80


lines = st.text(alphabet=st.sampled_from("blocks end all 0129. OKEBUSY\n\x1b-"), max_size=60) | st.text()


@pytest.mark.slow
@given(st.lists(lines | st.just(HEAD) | st.just(f"7 0.500 OK {BLOCK}") | st.just("end all"), max_size=6))
def test_any_text_is_read_or_refused(parts: list[str]) -> None:
    try:
        blocks = read_blocks("\n".join(parts))
    except CommandError:
        return
    assert len(blocks.tried) <= blocks.count
    assert blocks.done_bytes <= blocks.count * blocks.block_bytes


@pytest.mark.parametrize(
    ("params", "wrong", "right"),
    [
        ({"by": "512MiB"}, None, None),
        ({"by": "0B"}, "0B of 3GiB", "less than 3GiB"),
        ({"by": "3GiB"}, "3GiB of 3GiB", "less than 3GiB"),
        ({"by": "200MiB"}, "no whole number of memory blocks", "multiple of 128MiB"),
        ({"by": "512MiB", "per_block": "0s"}, "needs some time", "at least 1ms"),
    ],
)
def test_what_can_be_told_beforehand(params: dict[str, str], wrong: str | None, right: str | None) -> None:
    problems = list(action("offline", **params).problems(MACHINE))
    if wrong is None or right is None:
        assert problems == []
        return
    (problem,) = problems
    assert wrong in problem.wrong
    assert right in problem.right


def test_how_a_step_is_shown() -> None:
    assert action("offline", by="512MiB").describe() == "take 512 MiB offline"
    assert action("online").describe() == "bring memory blocks online"


class Sysfs:
    """Memory blocks of our own, and the program compiled to look there."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "memory"
        self.folder.mkdir()
        (self.folder / "block_size_bytes").write_text("8000000\n")
        (self.folder / "auto_online_blocks").write_text("online\n")
        self.program = root / "memory-blocks"
        flags = [*("-std=gnu11", "-Wall", "-Wextra", "-Werror"), f'-DFOLDER="{self.folder}"']
        subprocess.run(["gcc", *flags, "-o", self.program, SOURCE], check=True)

    def block(self, index: int, state: str) -> Path:
        path = self.folder / f"memory{index}" / "online"
        path.parent.mkdir()
        path.write_text(f"{state}\n")
        return path

    def states(self) -> dict[int, str]:
        paths = self.folder.glob("memory*/online")
        return {int(path.parent.name[6:]): path.read_text()[0] for path in paths if path.is_file()}

    def run(self, *words: object) -> str:
        argv = [str(self.program), *map(str, words)]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_the_program_takes_the_highest_online_blocks(sysfs: Sysfs) -> None:
    for index in (0, 1, 2, 9, 10, 33):
        sysfs.block(index, "0" if index == 10 else "1")
    blocks = read_blocks(sysfs.run("offline", 2 * BLOCK, 1000, 5000, "highest"))
    assert (blocks.block_bytes, blocks.count, blocks.end) == (BLOCK, 5, "enough")
    assert [block.result for block in blocks.tried] == ["OK", "OK"]
    assert sysfs.states() == {0: "1", 1: "1", 2: "1", 9: "0", 10: "0", 33: "0"}
    assert read_blocks(sysfs.run("offline", BLOCK, 1000, 5000, "lowest")).done_bytes == BLOCK
    assert sysfs.states()[0] == "0"
    back = read_blocks(sysfs.run("online", 5000))
    assert (back.count, back.done_bytes, back.end) == (4, 4 * BLOCK, "all")
    assert set(sysfs.states().values()) == {"1"}
    assert read_blocks(sysfs.run("online", 5000)).count == 0


@pytest.fixture
def stuck(sysfs: Sysfs) -> Iterator[Path]:
    """A block whose `online` can be read and never be written: a pipe that is full."""
    path = sysfs.block(50, "1")
    path.unlink()
    os.mkfifo(path)
    with ExitStack() as stack:
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, pipe)
        with suppress(BlockingIOError):
            while True:
                os.write(pipe, b"1" * 4096)
        yield path


@pytest.mark.usefixtures("stuck")
def test_a_block_that_never_ends_is_given_up(sysfs: Sysfs) -> None:
    sysfs.block(3, "1")
    blocks = read_blocks(sysfs.run("offline", 2 * BLOCK, 200, 5000, "highest"))
    assert [block.result for block in blocks.tried] == ["EINTR", "OK"]
    assert 0.2 <= blocks.tried[0].seconds < 2
    assert (blocks.end, blocks.done_bytes) == ("all", BLOCK)


@pytest.mark.usefixtures("stuck")
def test_the_time_for_all_ends_it(sysfs: Sysfs) -> None:
    sysfs.block(3, "1")
    blocks = read_blocks(sysfs.run("offline", 2 * BLOCK, 60_000, 200, "highest"))
    assert ([block.result for block in blocks.tried], blocks.end) == (["EINTR"], "time")
    assert sysfs.states()[3] == "1", "its turn never came"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["offline", "1", "1", "1"],
        ["offline", "1", "1", "1", "middle"],
        ["offline", "-1", "1", "1", "highest"],
        ["offline", "1x", "1", "1", "highest"],
        ["online", ""],
        ["online", "1", "1"],
    ],
)
def test_bad_arguments_of_the_program(sysfs: Sysfs, words: list[str]) -> None:
    done = subprocess.run([sysfs.program, *words], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr
