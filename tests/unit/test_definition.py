"""Guest definitions: ours loads, and a bad one is told every fault with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import BadInputError, FileProblemsError
from orchestrator.guest.definition import load_definition

ROOT = Path(__file__).parents[2]
GOOD = """\
version: 1
name: tiny
suite: trixie
disk: 1GiB
packages: [udev]
kernels:
  "6.12": {package: linux-image-amd64, suite: trixie}
initrd_modules: [ext4]
command_line: quiet
"""


@pytest.mark.parametrize("path", sorted((ROOT / "guests").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_we_ship_loads(path: Path) -> None:
    definition = load_definition(path)
    assert definition.name == path.stem
    suites = {definition.suite, *definition.also_suites}
    assert {kernel.suite for kernel in definition.kernels.values()} <= suites, "or apt will not find it"
    assert "console=ttyS0" in definition.command_line, "or a panic is not seen"


def test_the_first_kernel_is_the_default() -> None:
    assert load_definition(ROOT / "guests" / "debian-13.yaml").default_kernel == "6.12"


@pytest.mark.parametrize(
    ("good", "bad", "place", "says"),
    [
        ("name: tiny", "name: Ti ny", "2:7", ""),
        ("disk: 1GiB", "disk: 1G", "4:7", "write 1GiB"),
        ("packages: [udev]", "packages: [udev, '-o=x']", "5:18", ""),
        ("package: linux-image-amd64, ", "", "7:11", "package"),
        ("command_line: quiet", "command_line: quiet\nkernel: 6.12", "10:1", "kernel"),
        ("version: 1", "version: 2", "1:10", ""),
    ],
)
def test_faults_have_a_place(tmp_path: Path, good: str, bad: str, place: str, says: str) -> None:
    assert good in GOOD
    path = tmp_path / "tiny.yaml"
    path.write_text(GOOD.replace(good, bad))
    with pytest.raises(FileProblemsError) as refused:
        load_definition(path)
    (problem,) = refused.value.problems
    assert f"{problem.line}:{problem.column}" == place
    assert str(problem).startswith(f"{path}:{place}: ")
    assert says in str(problem)


def test_no_kernel_at_all(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(GOOD.replace('\n  "6.12": {package: linux-image-amd64, suite: trixie}', " {}"))
    with pytest.raises(FileProblemsError, match=r":6:\d+: "):
        load_definition(path)


def test_an_unknown_guest_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(GOOD)
    with pytest.raises(BadInputError, match="no guest is called 'huge'") as refused:
        load_definition(tmp_path / "huge.yaml")
    assert refused.value.hint == "there are: tiny"
