"""What is wrong with steps that are well-formed, told where it stands, before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cli.scenario import open_scenario
from orchestrator.errors import FileProblemsError

ROOT = Path(__file__).resolve().parents[2]
HEAD = "version: 1\nname: x\nguest: debian-13\nmachine: {memory: 1GiB}\narms: {a: }\nsteps:\n"


@pytest.mark.parametrize(
    ("step", "place", "words"),
    [
        ("start: {workload: redsi}", "8:23", "no workload is called 'redsi'; did you mean 'redis'?"),
        ("start: {workload: sparse-map, set: {span: 50GB}}", "8:40", "span: '50GB' is not a size"),
        ("start: {workload: sparse-map, set: {spam: 1GiB}}", "8:40", "spam: Extra inputs are not permitted"),
        ("stop: {workload: nothing}", "8:22", "no workload is called 'nothing'"),
        ("snapshot: {label: first}", "8:23", "a second snapshot is called 'first'"),
    ],
)
def test_a_bad_step_is_told_with_its_place(tmp_path: Path, step: str, place: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"{HEAD}  - snapshot: {{label: first}}\n  - {step}\n")
    with pytest.raises(FileProblemsError) as refused:
        open_scenario(path, ROOT / "guests")
    (problem,) = refused.value.problems
    assert re.match(rf"{re.escape(str(path))}:{place}: .*{re.escape(words)}", str(problem)), str(problem)


def test_labels_differ_within_each_arm(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    head = HEAD.replace("{a: }", "{a: , b: , c: }")
    steps = [
        "  - snapshot: {label: same}\n    in: a\n",
        "  - snapshot: {label: same}\n    in: [b]\n",
        "  - snapshot: {label: other}\n    in: [a, b]\n",
        "  - wait: {time: 1s}\n",
    ]
    path.write_text(head + "".join(steps))
    assert len(open_scenario(path, ROOT / "guests").steps) == 4
    path.write_text(head + "".join(steps) + "  - snapshot: {label: same}\n    in: [b, c]\n")
    with pytest.raises(FileProblemsError) as refused:
        open_scenario(path, ROOT / "guests")
    (problem,) = refused.value.problems
    assert str(problem) == (
        f"{path}:14:23: a second snapshot is called 'same' (in b); give each its own label"
    )


def test_the_scenarios_that_come_along_are_sound(tmp_path: Path) -> None:
    """Also without a bzImage beside them, which is the user's to bring."""
    paths = list((ROOT / "scenarios").glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        copy = tmp_path / path.name
        copy.write_text(path.read_text())
        assert open_scenario(copy, ROOT / "guests").name == path.stem


def test_a_kernel_of_ones_own_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    copy = tmp_path / "my-kernel.yaml"
    copy.write_text((ROOT / "scenarios" / "my-kernel.yaml").read_text())
    assert [problem.line for problem in open_scenario(copy, ROOT / "guests").absent] == [13]
    with pytest.raises(FileProblemsError, match="there is no file"):
        open_scenario(copy, ROOT / "guests", to_run=True)
