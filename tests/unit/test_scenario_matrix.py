"""A matrix of arms: every combination, those left out, those added, and where a fault in it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import FileProblemsError
from orchestrator.scenario import Scenario, load_scenario

TEXT = """\
version: 1
name: m
guest: debian-13
machine: {memory: 1GiB}
matrix:
  axes:
    kernel: {"6.12": {kernel: "6.12"}, "7.x": {kernel: "7.x"}}
    policy: {plain: , movable: {setup: {online_policy: online_movable}}}
steps:
  - wait: {time: 1s}
"""


def load(folder: Path, text: str) -> Scenario:
    path = folder / "m.yaml"
    path.write_text(text)
    return load_scenario(path, kernels_of=lambda _: ["6.12", "7.x"])


def test_every_combination_is_an_arm(tmp_path: Path) -> None:
    arms = {arm.name: (arm.kernel, arm.setup.online_policy) for arm in load(tmp_path, TEXT).arms}
    assert arms == {
        "6.12-plain": ("6.12", "online"),
        "6.12-movable": ("6.12", "online_movable"),
        "7.x-plain": ("7.x", "online"),
        "7.x-movable": ("7.x", "online_movable"),
    }


def test_some_are_left_out_and_some_are_added(tmp_path: Path) -> None:
    text = TEXT.replace("steps:", '  exclude: [7.x-plain]\narms: {again: {kernel: "6.12"}}\nsteps:')
    assert [arm.name for arm in load(tmp_path, text).arms] == [
        *("6.12-plain", "6.12-movable", "7.x-movable", "again")
    ]


def test_a_step_may_be_in_a_combination(tmp_path: Path) -> None:
    text = TEXT + "  - wait: {time: 2s}\n    in: 6.12-plain\n"
    assert load(tmp_path, text).steps[1].arms == ("6.12-plain",)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("online_movable", "onlin", "8:56: setup.online_policy is 'onlin'"),
        ("steps:", "  exclude: [7.x-plane]\nsteps:", "9:13: the matrix has no arm '7.x-plane'"),
        ("steps:", "arms: {7.x-plain: }\nsteps:", "9:8: the matrix has an arm '7.x-plain', too"),
        (
            "{plain: , mov",
            "{plain: {kernal: x}, mov",
            "8:22: unknown key 'kernal' in matrix.axes.policy.plain",
        ),
        ("matrix:\n  axes:", "matrix:\n  axis:", "6:3: matrix has no key 'axes'"),
    ],
)
def test_a_fault_stands_where_it_was_written(tmp_path: Path, old: str, new: str, fault: str) -> None:
    with pytest.raises(FileProblemsError) as error:
        load(tmp_path, TEXT.replace(old, new, 1))
    told = [f"{p.line}:{p.column}: {p.wrong}; {p.right}" for p in error.value.problems]
    assert any(line.startswith(fault) for line in told), told
