"""`validate` and `plan` as a user calls them: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, NoReturn

import psutil
import pytest
from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.cli import main, scenario
from orchestrator.errors import BadInputError
from orchestrator.host.machine import Machine
from orchestrator.plan import Plan
from orchestrator.units import GIB, Duration, Size, write_size

GUEST = """\
version: 1
name: debian-13
suite: trixie
disk: 2GiB
packages: []
kernels:
  "6.12": {package: linux-image-cloud-amd64, suite: trixie}
  7.x: {package: linux-image-cloud-amd64, suite: trixie-backports}
initrd_modules: []
command_line: console=ttyS0
"""

GOOD = """\
version: 1
name: quick
description: Does it come back?
guest: debian-13
machine:
  memory: 1GiB
  virtio_mem: {size: 2GiB}
repeats: 2
arms:
  old: {kernel: "6.12"}
  new-and-with-a-long-name: {kernel: "7.x", setup: {thp: never}}
steps:
  - grow: {to: 1536MiB}
  - look:
"""

BAD = """\
version: 1
name: quick
guest: debian-13
machine:
  memroy: 1GiB
  memory: 1536MB
  virtio_mem: {size: 2GiB, block: 3MiB}
arms:
  old: {kernel: 6.12}
  new: {kernel: "8.x"}
steps:
  - grow: {to: 1.5GiB}
  - gorw: {to: 0B}
"""


class Grow(Action):
    """Plug memory until so much is plugged."""

    to: Size
    """Bytes that are plugged afterwards."""
    timeout: Annotated[Duration, Field(gt=0)] = 60.0

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        if machine.virtio_mem is None or self.to > machine.virtio_mem.size:
            yield FieldProblem("to", f"{write_size(self.to)} is too much", "ask for less")

    def describe(self) -> str:
        return f"grow to {self.to} B"

    def run(self, trial: object) -> NoReturn:
        raise NotImplementedError


class Look(Action):
    """Take a look."""

    label: str = "here"

    def describe(self) -> str:
        return "look [here]"

    def run(self, trial: object) -> NoReturn:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    two_actions_and_much_memory(monkeypatch)


def two_actions_and_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a test."""
    monkeypatch.setattr(ACTIONS, "_loaded", True)
    monkeypatch.setattr(ACTIONS, "_things", {"grow": Grow, "look": Look})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as users have it, which is also where they are."""
    monkeypatch.chdir(tmp_path)
    return write_files(tmp_path)


def write_files(tmp_path: Path) -> Path:
    """guests/, good.yaml, bad.yaml."""
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests" / "debian-13.yaml").write_text(GUEST)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


def call(*argv: str) -> int:
    """Run the command line; its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    return int(caught.value.code or 0)


def test_a_good_file_is_ok(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("validate", "good.yaml") == 0
    assert capsys.readouterr() == ("good.yaml: ok (2 arms, 2 repeats, 2 steps)\n", "")


SOME = """\
  - look: {label: only}
    in: new-and-with-a-long-name
"""


def test_steps_of_some_arms_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.yaml").write_text(GOOD + SOME)
    assert call("validate", "good.yaml") == 0
    assert capsys.readouterr().out == (
        "good.yaml: ok (2 arms, 2 repeats, 3 steps)\n  step 3, in new-and-with-a-long-name: look [here]\n"
    )
    assert call("plan", "good.yaml") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    begin = lines.index(["Steps"])
    assert lines[begin + 1 : begin + 5] == [
        ["action", "what", "it", "does", "arms"],
        ["1", "grow", "grow", "to", "1610612736", "B", "all"],
        ["2", "look", "look", "[here]", "all"],
        ["3", "look", "look", "[here]", "new-and-with-a-long-name"],
    ]


def test_plan_shows_kernel_args_by_arm_or_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.yaml").write_text(GOOD + "kernel_args: page_owner=on\n")
    assert call("plan", "good.yaml") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2] == "kernel_args page_owner=on"
    assert out.count("kernel_args") == 1
    (folder / "good.yaml").write_text(GOOD.replace('{kernel: "6.12"', '{kernel_args: quiet, kernel: "6.12"'))
    assert call("plan", "good.yaml") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    begin = lines.index(["Arms"])
    assert lines[begin + 1 : begin + 3] == [
        ["arm", "kernel", "kernel_args", "thp", "memory", "up", "to", "vCPUs"],
        ["old", "6.12", "quiet", "image", "1", "GiB", "3", "GiB", "2"],
    ]


def test_every_fault_of_every_file_is_told_with_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", "good.yaml", "bad.yaml", "missing.yaml") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "bad.yaml:5:3: unknown key 'memroy' in machine; did you mean 'memory'?\n"
        "bad.yaml:6:11: machine.memory: '1536MB' is not a size; "
        "write 1536MiB (units are B, KiB, MiB, GiB, TiB)\n"
        'bad.yaml:9:17: arms.old.kernel is 6.12; write it in quotes: "6.12"\n'
        "bad.yaml:10:17: there is no kernel '8.x'; did you mean '7.x'? A path has a '/', as in ./bzImage\n"
        "bad.yaml:13:5: there is no action 'gorw'; did you mean 'grow'?\n"
        "missing.yaml:1:1: there is no such file; check the path\n"
        "6 problems\n"
    )


def test_faults_of_form_and_of_meaning_are_told_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bzImage").write_text("hello\n")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * GIB))
    text = GOOD.replace('"7.x"', "./bzImage").replace("repeats: 2", "repeats: 0") + SOME.replace(
        "only", "here"
    )
    expect = "expect:\n  - {metric: unplug_seconds, arm: odl, at_most: 1s}\n"
    (folder / "good.yaml").write_text(text + expect)
    for verb in ("validate", "run"):
        assert call(verb, "good.yaml") == 2
        told = capsys.readouterr().err.splitlines()
        assert [line.split(": ", 1)[1][:40] for line in told[:-1]] == [
            "arm 'old' can take 3.137 GiB of the host"[:40],
            "repeats is 0; it should be greater than or equal to 1"[:40],
            "kernel './bzImage' is a text file, no bzImage"[:40],
            "a second snapshot is called 'here' (in new-and"[:40],
            "there is no arm 'odl'; did you mean 'old'?"[:40],
        ]
        assert told[-1] == "5 problems"


def test_a_kernel_that_is_not_there_is_a_warning_and_run_needs_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "good.yaml").write_text(GOOD.replace('"7.x"', "./bzImage"))
    assert call("validate", "good.yaml") == 0
    out, err = capsys.readouterr()
    assert out.startswith("good.yaml: ok")
    assert err.startswith("warning: good.yaml:11:38: kernel './bzImage': there is no file ")
    assert "`run` needs it" in err
    assert call("plan", "good.yaml") == 0
    capsys.readouterr()
    assert call("run", "good.yaml") == 2
    assert "there is no file" in capsys.readouterr().err


def test_validate_json_has_the_same_problems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("validate", "bad.yaml", "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert len(answer["problems"]) == 5
    assert answer["problems"][0] == {
        "file": "bad.yaml",
        "line": 5,
        "column": 3,
        "wrong": "unknown key 'memroy' in machine",
        "right": "did you mean 'memory'?",
    }
    assert call("validate", "good.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": "orchestrator.validate/1",
        "valid": True,
        "problems": [],
        "warnings": [],
    }


def test_a_guest_larger_than_the_free_memory_is_a_fault_of_this_host_only(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * GIB))
    assert call("validate", "good.yaml") == 2
    assert "good.yaml:6:11: arm 'old' can take 3.137 GiB of the host" in capsys.readouterr().err
    assert call("validate", "good.yaml", "--any-host") == 0
    assert call("plan", "good.yaml") == 0


def test_guests_are_looked_up_above_the_scenario_or_where_one_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deeper = folder / "a" / "b"
    deeper.mkdir(parents=True)
    (deeper / "s.yaml").write_text(GOOD)
    assert call("validate", str(deeper / "s.yaml")) == 0
    other = folder / "other"
    other.mkdir()
    assert call("validate", "good.yaml", "--guests-dir", str(other)) == 2
    assert "good.yaml:4:8: no guest is called 'debian-13'" in capsys.readouterr().err
    assert call("validate", "good.yaml", "--guests-dir", str(folder / "no")) == 2
    assert scenario.find_guests_dir(Path("/s.yaml")) == Path(__file__).parents[2] / "guests"
    with pytest.raises(BadInputError):
        scenario.find_guests_dir(Path("good.yaml"), folder / "no")


def test_plan_shows_arms_steps_and_trials(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "good.yaml", "--seed", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "quick: Does it come back?"
    assert lines[1] == "guest debian-13, accel auto, seed 3, a reading every 1.0 s"
    text = "\n".join(lines)
    for words in ("6.12", "never", "1 GiB", "3 GiB", "grow to 1610612736 B", "look [here]", "Trials (4)"):
        assert words in text


def test_plan_json_is_the_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "good.yaml", "--json", "--seed", "3", "--repeats", "5") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("format") == "orchestrator.plan/2"
    plan = Plan.from_json(json.dumps({"format": 1} | printed))
    assert (plan.seed, plan.repeats, len(plan.trials)) == (3, 5, 10)
    assert plan.trials[0].steps[0].load() == Grow.model_validate({"to": "1536MiB"})


def test_some_arms_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect = "expect:\n  - {metric: outcome, one_of: completed}\n"
    expect += "  - {metric: outcome, arm: new-and-with-a-long-name, one_of: completed}\n"
    (folder / "good.yaml").write_text(GOOD + expect)
    assert call("plan", "good.yaml", "--json", "--arm", "old") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [arm["name"] for arm in plan["arms"]] == ["old"]
    assert [trial["id"] for trial in plan["trials"]] == ["old-01", "old-02"]
    assert [one["arm"] for one in plan["expect"]] == ["old"]
    assert call("plan", "good.yaml", "--arm", "older") == 2
    assert "did you mean 'old'?" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("columns", [40, 90, 200])
def test_the_tables_of_a_plan_fit_the_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert call("plan", "good.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index(next(line for line in lines if line.startswith("Arms")))
    assert len(lines) > begin + 10
    fits = max(len(line.rstrip()) for line in lines[begin:]) <= columns
    assert fits is (columns >= 90), "of 40, not even the longest words fit"
    assert "new-and-with-a-long-name-01" in "\n".join(lines), "and none of them is broken"


VALIDATED = """
import sys
from orchestrator.cli import main
try:
    main(["validate", "--any-host", *sys.argv[1:]])
except SystemExit as ended:
    assert not ended.code
from orchestrator.actions.base import ACTIONS
heavy = {"numpy", "pandas", "scipy", "numba", "altair", "lxml", "libvirt", "fabric", "ansible_runner"}
print(len(list(ACTIONS)) > 10, sorted(heavy & {*sys.modules}))
"""


def test_validate_imports_nothing_heavy() -> None:
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root)}
    argv = [sys.executable, "-c", VALIDATED, "scenarios/blame.yaml"]
    done = subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("scenarios/blame.yaml: ok (")
    assert lines[-1] == "True []", (
        "all actions were asked, and none of them needs such a module to be checked"
    )


def test_a_long_step_is_told_in_full(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # else it would wrap, as on a terminal
    words = "exec " + " ".join(f"argument-{number}" for number in range(30))
    monkeypatch.setattr(Look, "describe", lambda _: words)
    (folder / "good.yaml").write_text(GOOD + SOME)
    for verb in ("validate", "plan"):
        assert call(verb, "good.yaml") == 0
        assert words in capsys.readouterr().out
