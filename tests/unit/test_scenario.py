"""Scenario files: what a good one becomes, and the exact place and words of every fault."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_faults import FAULTS, GOOD

from orchestrator.actions.base import Action, FieldProblem
from orchestrator.errors import BadInputError, FileProblemsError, Problem
from orchestrator.host.machine import Machine
from orchestrator.registry import Registry
from orchestrator.scenario import Scenario, guest_overhead_bytes, load_scenario
from orchestrator.scenario.checks import unfit
from orchestrator.scenario.schema import scenario_schema
from orchestrator.units import GIB, MIB, Size, parse_size, write_size

BZIMAGE = b"\0" * 0x1FE + b"\x55\xaa" + b"\xeb\x6a" + b"HdrS" + b"\0" * 0x200
ACTIONS: Registry[type[Action]] = Registry("action", "tests.no_package")
ACTIONS._loaded = True


@ACTIONS.register("grow")
class Grow(Action):
    """Plug to a size."""

    to: Size

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        limit = machine.virtio_mem.size if machine.virtio_mem else 0
        if self.to > limit:
            wrong = f"{write_size(self.to)} is more than the device's {write_size(limit)}"
            yield FieldProblem("to", wrong, f"use at most {write_size(limit)}")

    def describe(self) -> str:
        return f"grow to {self.to}"

    def run(self, trial: object) -> NoReturn:
        raise NotImplementedError


@ACTIONS.register("look")
class Look(Action):
    """Take a look."""

    label: str = "here"

    def describe(self) -> str:
        return f"look {self.label}"

    def run(self, trial: object) -> NoReturn:
        raise NotImplementedError


def kernels_of(guest: str) -> Collection[str]:
    if guest != "debian-13":
        raise BadInputError(f"no guest is called {guest!r}", hint="there are: debian-13")
    return {"6.12": 0, "7.x": 0}


def load(tmp_path: Path, text: str | bytes) -> Scenario:
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_scenario(path, kernels_of=kernels_of, actions=ACTIONS)


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    """Every fault of a text, with the folder cut off."""
    with pytest.raises(FileProblemsError) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == 2
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def good_but(old: str, new: str) -> str:
    """The good file with one text replaced, which must be there once."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_file_has_its_values_and_the_defaults(tmp_path: Path) -> None:
    scenario = load(tmp_path, GOOD)
    assert scenario.name == "quick"
    assert scenario.body.accel == "auto"
    assert scenario.body.sample_every == 1.0
    assert (scenario.body.repeats, scenario.body.seed) == (1, 1)
    (arm,) = scenario.arms
    assert (arm.name, arm.kernel) == ("a", "6.12")
    assert arm.machine.memory == GIB
    assert arm.machine.virtio_mem is not None
    assert arm.machine.virtio_mem.block == 2 * MIB
    assert arm.setup.online_policy == "online"
    assert [(step.name, step.action) for step in scenario.steps] == [
        ("grow", Grow.model_validate({"to": "1GiB"}))
    ]


def test_an_arm_overrides_only_what_it_names(tmp_path: Path) -> None:
    arms = (
        "  a: {machine: {virtio_mem: {block: 4MiB}}, setup: {thp: never, redis_config: {save: ''}}}\n  b:\n"
    )
    setup = "setup: {online_policy: online_movable, redis_config: {maxmemory: 5}}\n"
    scenario = load(
        tmp_path, good_but('arms:\n  a: {kernel: "6.12"}\n', f"kernel: 7.x\n{setup}arms:\n{arms}")
    )
    changed, same = scenario.arms
    assert changed.machine.virtio_mem is not None
    assert same.machine.virtio_mem is not None
    assert (changed.machine.virtio_mem.block, changed.machine.virtio_mem.size) == (4 * MIB, 2 * GIB)
    assert same.machine.virtio_mem.block == 2 * MIB
    assert (changed.setup.thp, changed.setup.online_policy) == ("never", "online_movable")
    assert changed.setup.redis_config == {"maxmemory": 5, "save": ""}
    assert same.setup.redis_config == {"maxmemory": 5}
    assert {changed.kernel, same.kernel} == {"7.x"}


def test_a_step_is_for_all_arms_or_for_those_that_it_names(tmp_path: Path) -> None:
    text = good_but('  a: {kernel: "6.12"}\n', "  a:\n  b:\n  c:\n")
    text += "  - look:\n    in: [c, a]\n  - in: b\n    look: {label: there}\n"
    assert [(step.name, step.arms) for step in load(tmp_path, text).steps] == [
        ("grow", ("a", "b", "c")),
        ("look", ("a", "c")),  # in the order of the file
        ("look", ("b",)),
    ]


def test_an_arms_kernel_args_replace_the_scenarios(tmp_path: Path) -> None:
    arms = "  a: {kernel_args: quiet 'x=\"1 2\"'}\n  b:\n  c: {kernel_args: null}\n"
    text = good_but('arms:\n  a: {kernel: "6.12"}\n', f"kernel_args: page_owner=on\narms:\n{arms}")
    assert [arm.kernel_args for arm in load(tmp_path, text).arms] == [
        "quiet 'x=\"1 2\"'",
        "page_owner=on",
        "",
    ]
    (plain,) = load(tmp_path, GOOD).arms
    assert plain.kernel_args == ""


def test_a_ratio_belongs_to_auto_movable(tmp_path: Path) -> None:
    arms = (
        "  a: {setup: {online_policy: online, auto_movable_ratio: null}}\n  b:\n"
        "  c: {setup: {auto_movable_ratio: 0}}\n  d: {setup: {auto_movable_ratio: null}}\n"
    )
    setup = "setup: {online_policy: auto-movable, auto_movable_ratio: 200, sysctl: {vm.swappiness: 7}}\n"
    made = load(tmp_path, good_but('arms:\n  a: {kernel: "6.12"}\n', f"{setup}arms:\n{arms}"))
    assert [(arm.setup.online_policy, arm.setup.auto_movable_ratio) for arm in made.arms] == [
        ("online", None),
        ("auto-movable", 200),
        ("auto-movable", 0),
        ("auto-movable", 301),
    ]
    assert {tuple(arm.setup.sysctl.items()) for arm in made.arms} == {(("vm.swappiness", 7),)}


def test_a_size_of_swap_belongs_to_swap(tmp_path: Path) -> None:
    arms = "  a: {setup: {swap: none, swap_size: null}}\n  b:\n  c: {setup: {swap: zram, swap_size: null}}\n"
    setup = "setup: {swap: disk, swap_size: 64MiB}\n"
    made = load(tmp_path, good_but('arms:\n  a: {kernel: "6.12"}\n', f"{setup}arms:\n{arms}"))
    assert [(arm.setup.swap, arm.setup.swap_size) for arm in made.arms] == [
        ("none", None),
        ("disk", 64 << 20),
        ("zram", 512 << 20),
    ]


@pytest.mark.parametrize(
    ("setup", "wrong"),
    [
        ("{swap_size: 64MiB}", "it means nothing without swap"),
        ("{swap: disk, swap_size: 5KiB}", "swap_size"),
        ("{swap: disk, swap_size: 1025KiB}", "swap_size"),
    ],
)
def test_a_size_of_swap_that_cannot_be(tmp_path: Path, setup: str, wrong: str) -> None:
    with pytest.raises(FileProblemsError, match=wrong):
        load(tmp_path, good_but('arms:\n  a: {kernel: "6.12"}\n', f"setup: {setup}\narms:\n  a:\n"))


def test_without_a_kernel_the_definition_decides_and_null_takes_a_device_away(tmp_path: Path) -> None:
    text = good_but('{kernel: "6.12"}', "{machine: {virtio_mem: null}}").replace("grow: {to: 1GiB}", "look:")
    (arm,) = load(tmp_path, text).arms
    assert arm.kernel == "6.12"
    assert arm.machine.virtio_mem is None


def test_a_kernel_with_a_slash_is_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(BZIMAGE)
    (arm,) = load(tmp_path, good_but('"6.12"', "./bzImage")).arms
    assert arm.kernel == str(tmp_path / "bzImage")


def test_anchors_are_fine_while_they_are_small(tmp_path: Path) -> None:
    text = good_but('  a: {kernel: "6.12"}\n', '  a: &x {kernel: "7.x"}\n  b: *x\n')
    assert [arm.kernel for arm in load(tmp_path, text).arms] == ["7.x", "7.x"]


@pytest.mark.parametrize(("old", "new", "expected"), FAULTS)
def test_fault(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert faults(tmp_path, good_but(old, new)) == expected


PIECES = [
    "\t",
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!x ",
    "'",
    '"',
    "#",
    "null",
    "~",
    "|",
    "\0",
]
PIECES += [
    "9" * 50,
    "1e999",
    "0x",
    "<<",
    "---",
    "%",
    "?",
    "\ud7ff",
    "\x85",
    "\\",
    "a:",
    "\n    in: [a]",
    "@",
    "1GiB",
    "-1",
    ".nan",
]


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 8), st.sampled_from(PIECES)), max_size=4))
def test_whatever_is_written_is_a_scenario_or_a_list_of_faults(edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for start, removed, put in edits:
        text = text[:start] + put + text[start + removed :]
    problems = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            load(Path(folder), text)
        except FileProblemsError as error:
            problems = error.problems
    assert problems != []
    for problem in problems or ():
        assert 1 <= problem.line <= text.count("\n") + 2
        assert problem.column >= 1
        assert problem.wrong.isprintable()
        assert problem.right


def test_a_kernel_file_that_is_not_there_is_a_fault_for_whom_it_shall_run(tmp_path: Path) -> None:
    text = good_but('"6.12"', "../no/bzImage")
    (problem,) = load(tmp_path, text).absent
    assert str(problem).startswith(f"{tmp_path}/s.yaml:8:15: kernel '../no/bzImage': there is no file ")
    with pytest.raises(FileProblemsError) as caught:
        load_scenario(tmp_path / "s.yaml", kernels_of=lambda _: ["6.12", "7.x"], actions=ACTIONS, to_run=True)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"make bzImage\n", "a text file, no bzImage"),
        (b"\x7fELF\x02\x01", "an ELF file, such as vmlinux, no bzImage"),
        (b"\x1f\x8b\x08", "gzip data, no bzImage"),
        (b"", "an empty file, no bzImage"),
        (BZIMAGE.replace(b"HdrS", b"HdrX"), "no bzImage: it has no boot header"),
        (BZIMAGE.replace(b"\x55\xaa", b"\0\0"), "no bzImage: it has no boot header"),
    ],
)
def test_a_file_that_is_no_bzimage_is_named_for_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "bzImage").write_bytes(content)
    (fault,) = faults(tmp_path, good_but('"6.12"', "./bzImage"))
    assert fault.startswith(f"s.yaml:8:15: kernel './bzImage' is {what}")
    assert "bzImage of the build" in fault


def test_a_step_that_does_not_suit_one_arm_says_which(tmp_path: Path) -> None:
    text = good_but('  a: {kernel: "6.12"}\n', "  a:\n  b: {machine: {virtio_mem: {size: 512MiB}}}\n")
    assert faults(tmp_path, text) == [
        "s.yaml:11:16: steps[0].grow.to: 1GiB is more than the device's 512MiB (in b); use at most 512MiB"
    ]


def test_faults_of_a_guest_definition_are_told_where_they_stand(tmp_path: Path) -> None:
    def broken(guest: str) -> Collection[str]:
        from orchestrator.errors import Problem

        raise FileProblemsError([Problem("guests/d.yaml", 3, 4, "bad", "good")])

    path = tmp_path / "s.yaml"
    path.write_text(GOOD)
    with pytest.raises(FileProblemsError) as caught:
        load_scenario(path, kernels_of=broken, actions=ACTIONS)
    assert str(caught.value) == "guests/d.yaml:3:4: bad; good"


def test_a_guest_name_never_leaves_the_folder(tmp_path: Path) -> None:
    def never(guest: str) -> Collection[str]:
        raise AssertionError(guest)

    path = tmp_path / "s.yaml"
    path.write_text(good_but("guest: debian-13", "guest: ../../etc/passwd"))
    with pytest.raises(
        FileProblemsError, match=r"s.yaml:3:8: guest: '../../etc/passwd' cannot name a folder"
    ):
        load_scenario(path, kernels_of=never, actions=ACTIONS)


def check_fits(scenario: Scenario, available_bytes: int) -> list[Problem]:
    """As a load that is told how much memory is free reports it."""
    found = unfit({arm.name: arm.machine for arm in scenario.arms}, available_bytes)
    return [scenario.views[found[0]].problem(found[1].path, found[1].wrong, found[1].right)] if found else []


def test_check_fits_names_the_largest_arm_and_what_would_fit(tmp_path: Path) -> None:
    text = good_but('  a: {kernel: "6.12"}\n', "  a:\n  big: {machine: {memory: 3GiB}}\n")
    scenario = load(tmp_path, text)
    needed = 5 * GIB + guest_overhead_bytes(scenario.arms[1].machine)
    assert check_fits(scenario, needed) == []
    (problem,) = check_fits(scenario, needed - 1)
    assert (problem.line, problem.column) == (9, 27)
    assert "arm 'big' can take 5.145 GiB" in problem.wrong
    assert problem.right == "memory and virtio_mem.size together should be at most 5118MiB"
    (problem,) = check_fits(scenario, 100 * MIB)
    assert problem.right == "free memory on this host"


def test_dimms_count_where_memory_has_to_fit(tmp_path: Path) -> None:
    plain, text = (
        load(tmp_path, GOOD),
        good_but("  memory: 1GiB", "  memory: 1GiB\n  dimms: [512MiB, 512MiB]"),
    )
    scenario = load(tmp_path, text)
    assert scenario.arms[0].machine.maximum_memory == plain.arms[0].machine.maximum_memory + GIB
    (problem,) = check_fits(scenario, 4 * GIB)
    assert problem.right.startswith("memory, virtio_mem.size and dimms together should be at most ")


def test_what_check_fits_proposes_does_fit(tmp_path: Path) -> None:
    available = 7 * GIB + 12345
    big = load(tmp_path, good_but("size: 2GiB", "size: 64GiB"))
    (problem,) = check_fits(big, available)
    room = parse_size(problem.right.rsplit(" ", 1)[1])
    fitting = load(tmp_path, good_but("size: 2GiB", f"size: {write_size(room - GIB)}"))
    assert check_fits(fitting, available) == []
    tight = load(tmp_path, good_but("size: 2GiB", f"size: {write_size(room - GIB + 2 * MIB)}"))
    assert check_fits(tight, available) != []


def test_the_schema_describes_every_key() -> None:
    schema = scenario_schema()
    models = {"": schema, **schema["$defs"]}
    keys = {
        f"{name}.{key}": one for name, model in models.items() for key, one in model["properties"].items()
    }
    assert {"ArmText.kernel", "Machine.memory", "action.unplug.to", "Step.unplug", "Step.in"} <= keys.keys()
    assert [name for name, key in keys.items() if not key.get("description")] == []
