"""What is built from a clone: a wheel that needs none, the same bytes wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.commit import program_commit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DATA = ("guests", "playbooks", "results/reference", "scenarios", "workloads")


@dataclass(frozen=True)
class Built:
    """The two files, and the wheel unpacked."""

    sdist: Path
    wheel: Path
    site: Path

    def run(self, *words: str, cwd: Path, code: int = 0) -> str:
        """What the unpacked program prints in a folder; it imports nothing of the clone."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env={**os.environ, "PYTHONPATH": str(self.site)},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


def build(source: Path, into: Path, **environ: str) -> tuple[Path, Path]:
    """sdist and wheel of a folder."""
    # -P: as pip calls it, with nothing of the folder to import.
    argv = [sys.executable, "-P", "-m", "hatchling", "build", "-d", str(into)]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(argv, cwd=source, env={**clean, **environ}, capture_output=True, check=True)
    (sdist,), (wheel,) = into.glob("*.tar.gz"), into.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    sdist, wheel = build(ROOT, folder)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, folder / "site"], check=True)
    return Built(sdist, wheel, folder / "site")


def test_every_file_is_in_it(built: Built) -> None:
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "orchestrator", *DATA], capture_output=True, check=True
    )
    files = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]
    assert "scenarios/quickstart.yaml" in files
    for name in files:
        place = name if name.startswith("orchestrator/") else f"orchestrator/data/{name}"
        assert (built.site / place).read_bytes() == (ROOT / name).read_bytes(), name
    page = next(built.site.glob("*.data/data/share/man/man1/orchestrator.1"))
    assert page.read_bytes() == (ROOT / "docs" / "man" / "orchestrator.1").read_bytes()
    packed = {path.name for path in (built.site / "orchestrator" / "data").iterdir()}
    assert packed == {name.split("/")[0] for name in DATA}


def test_what_is_built_of_the_sdist_elsewhere_and_later_is_the_same(built: Built, tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", built.sdist, "-C", tmp_path], check=True)
    (source,) = tmp_path.iterdir()
    again = build(source, tmp_path / "again", TZ="Asia/Tokyo", LC_ALL="C")
    assert [sha256(path) for path in again] == [sha256(built.sdist), sha256(built.wheel)]
    later = build(source, tmp_path / "later", SOURCE_DATE_EPOCH="1800000000")
    assert sha256(later[1]) != sha256(built.wheel), "the date is in it"


def test_it_says_its_commit(built: Built, tmp_path: Path) -> None:
    commit = program_commit()
    assert commit.removesuffix("-dirty").isalnum()
    assert built.run("--version", cwd=tmp_path) == f"orchestrator, version {VERSION}, commit {commit}\n"
    # Inside of somebody else's repository, too.
    subprocess.run(["git", "init", "-q", built.site], check=True)
    (built.site / "orchestrator" / "COMMIT").rename(tmp_path / "COMMIT")
    try:
        assert "commit unknown\n" in built.run("--version", cwd=tmp_path)
    finally:
        (tmp_path / "COMMIT").rename(built.site / "orchestrator" / "COMMIT")


def test_it_works_in_an_empty_folder(built: Built, tmp_path: Path) -> None:
    assert "Verbs:" in built.run("--help", cwd=tmp_path)
    names = sorted(
        str(path.relative_to(ROOT / "scenarios").with_suffix(""))
        for path in (ROOT / "scenarios").rglob("*.yaml")
    )
    said = built.run("validate", "--any-host", *names, cwd=tmp_path).splitlines()
    data = built.site / "orchestrator" / "data"
    assert [line for line in said if ": ok (" in line and line.startswith(str(data))]
    for name in names:
        assert any(line.startswith(f"{data}/scenarios/{name}.yaml: ok (") for line in said), name
    assert json.loads(built.run("model", "policies", "--json", cwd=tmp_path))["policies"]
    (claim,) = json.loads(built.run("claims", "page-cache", "--json", cwd=tmp_path))["claims"]
    assert claim["parts"][0]["estimate"] > 0, "by results that were committed"
    assert not list(tmp_path.iterdir())


def test_files_beside_the_user_win_over_shipped_ones(built: Built, tmp_path: Path) -> None:
    said = built.run("init", ".", "--workload", "redis", cwd=tmp_path)
    assert "next: orchestrator run quickstart.yaml\n" in said
    again = built.run("init", ".", cwd=tmp_path, code=2)
    assert "quickstart.yaml exists, and nothing is overwritten" in again
    assert built.run("validate", "quickstart", cwd=tmp_path).startswith("quickstart.yaml: ok")
    # Its own redis, and the shipped sparse-map; guests as shipped.
    own = tmp_path / "workloads" / "redis" / "workload.yaml"
    own.write_text(own.read_text().replace("driver: redis", "driver: mine"))
    wrong = built.run("validate", "quickstart", cwd=tmp_path, code=2)
    assert wrong.splitlines()[1:] == ["1 problem"], "the shipped sparse-map is found"
    assert "no workload driver is called 'mine'" in wrong
    # The same for the shipped scenario, which has nothing of the user's beside it.
    assert "'mine'" in built.run("validate", "boots", "--any-host", cwd=tmp_path, code=2)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
