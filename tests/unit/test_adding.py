"""Adding a thing takes the files that docs/architecture.md names, and no other.

`added/` has a minimal example of some things of its table. Each is put into a copy of the package, in the
folders of its row, and is seen from there by whoever uses such things.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from synthetic_run import ARMS, write_run

from orchestrator.cli import main
from orchestrator.probes import PROBES

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = Path(__file__).parent / "added"

# The things that have an example: the row of the table, and its file in `added/` without the ending.
THINGS = {
    "action": "action",
    "probe": "probe",
    "policy": "policy",
    "chart, or section of the page": "section",
    "host kind": "host_kind",
    "cause of a lost guest": "cause",
}

SCENARIO = """version: 1
name: x
guest: debian-13
host: {host}
machine: {{memory: 1GiB}}
arms: {{a: }}
steps:
  - {step}
"""

COMMANDS = """
import contextlib, io, json, sys
from orchestrator.cli import main
ended = []
for argv in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main(argv)
        except SystemExit as end:
            ended.append([end.code or 0, said.getvalue()])
json.dump(ended, sys.stdout)
"""


@cache
def rows() -> Mapping[str, tuple[str, ...]]:
    """The folders where the table of docs/architecture.md has each thing."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    table = page.partition("## Adding an action, probe, workload or policy\n")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    (thing, where, shape), _, *found = ([cell.strip() for cell in row] for row in cells)
    assert (thing, where, shape) == ("thing", "where", "shape")
    return {row[0]: tuple(re.findall(r"`([^`]+)`", row[1])) for row in found}


def test_tests_that_the_page_names_exist() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = page.partition("Tests to run then")[2].partition("`./bootstrap tox -e")[0]
    heads = {line[2:].partition(":")[0] for line in named.splitlines() if line.startswith("- ")}
    things = {thing for head in heads for thing in (head.split(", ") if "workload" in head else [head])}
    assert things == set(rows()), "each thing of the table has its tests"
    names = set(re.findall(r"`([a-z_]+)`", named)) - {"validate"}
    assert len(names) > 20
    assert not {name for name in names if not (Path(__file__).parent / f"test_{name}.py").is_file()}


def files_for(thing: str) -> dict[str, Path]:
    """What is to be added for a thing, by its path in the repository: a file in each folder of its row."""
    sources = sorted(EXAMPLES.glob(f"{THINGS[thing]}.*"), key=lambda path: path.suffix != ".py")
    folders = rows()[thing]
    assert len(sources) == len(folders), f"{thing}: the table has {folders}, added/ has {sources}"
    return {
        f"{folder}added{''.join(source.suffixes)}": source
        for folder, source in zip(folders, sources, strict=True)
    }


@dataclass(frozen=True)
class Copy:
    """A copy of the repository that can be added to."""

    root: Path

    def add(self, thing: str) -> None:
        """Put the files of an example where the table says."""
        for path, source in files_for(thing).items():
            assert not (self.root / path).exists()
            shutil.copy(source, self.root / path)

    def added(self) -> set[str]:
        """Paths that are not in the repository, or not the same there."""
        here = {path.relative_to(self.root).as_posix(): path for path in self.root.rglob("*")}
        return {
            name
            for name, path in here.items()
            if path.is_file() and not (path.is_symlink() and path.samefile(REPOSITORY / name))
        }

    def python(self, script: str, *argv: str) -> str:
        """What a script prints that has this copy of the package, and the fakes of the tests."""
        argv = (sys.executable, "-c", script, *argv)
        paths = os.pathsep.join([str(self.root), str(Path(__file__).parent)])
        # What is replayed is short: to compile it takes longer.
        faster = {"NUMBA_DISABLE_JIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **faster, "PYTHONPATH": paths}
        done = subprocess.run(
            argv, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return done.stdout

    def ends(self, *commands: list[str]) -> list[tuple[int, str]]:
        """The exit code of each command, and what it printed."""
        return [(code, said) for code, said in json.loads(self.python(COMMANDS, json.dumps(commands)))]

    def documents(self, *commands: list[str]) -> list[Any]:
        """What commands print that go well and print JSON."""
        ended = self.ends(*commands)
        assert not any(code for code, _ in ended), ended
        return [json.loads(said) for _, said in ended]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """The package, file by file, and what it finds beside itself."""
    root = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "orchestrator", root / "orchestrator", copy_function=os.symlink)
    for folder in ("guests", "workloads"):
        (root / folder).symlink_to(REPOSITORY / folder)
    return Copy(root)


def scenario(folder: Path, name: str = "x.yaml", step: str = "wait: {time: 1s}", host: str = "local") -> str:
    path = folder / name
    path.write_text(SCENARIO.format(step=step, host=host))
    return str(path)


def test_the_table_has_every_thing_that_is_added_here() -> None:
    assert set(THINGS) <= set(rows())
    assert {path.name.partition(".")[0] for path in EXAMPLES.glob("*.*")} == set(THINGS.values())
    for folder in (folder for folders in rows().values() for folder in folders):
        assert (REPOSITORY / folder.partition("<")[0]).exists(), folder


@pytest.mark.parametrize("thing", THINGS)
def test_nothing_else_is_touched(copy: Copy, thing: str) -> None:
    assert copy.added() == set()
    copy.add(thing)
    assert copy.added() == set(files_for(thing))


def here(*argv: str) -> tuple[int, str]:
    """A command without what is added: this process has the same files as a copy, as they are."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
        main(list(argv))
    return int(end.value.code or 0), said.getvalue()


def test_an_action(copy: Copy, tmp_path: Path) -> None:
    path = scenario(tmp_path, step="added: {path: /tmp/here}")
    wrong = scenario(tmp_path, "wrong.yaml", step="added: {path: /etc/passwd}")
    code, said = here("validate", "--any-host", path, "--json")
    assert code == 2
    assert "added" in said

    copy.add("action")
    validate = (["validate", "--any-host", one, "--json"] for one in (path, wrong))
    (_, schema_text), (code, said), refused = copy.ends(["schema"], *validate)
    schema = json.loads(schema_text)
    assert code == 0
    assert json.loads(said)["valid"]
    own = schema["$defs"]["action.added"]
    assert own["description"] == "Make an empty file in the guest."
    assert own["properties"]["path"]["description"] == "Where."
    assert schema["$defs"]["Step"]["properties"]["added"]["$ref"] == "#/$defs/action.added"

    code, said = refused
    assert code == 2
    assert "path" in said

    script = (
        "from fakes import FakeTrial; from orchestrator.actions import ACTIONS; trial = FakeTrial()\n"
        "print(ACTIONS['added'](path='/tmp/here').run(trial).outcome, trial.calls)"
    )
    assert copy.python(script) == "done [('execute', ['touch', '/tmp/here'], 60.0)]\n"


LOST = """
from pathlib import Path
import sys
from fakes import FakeDomain, FakeShell
from orchestrator.errors import GuestLostError
from orchestrator.guest.boot import Guest
from orchestrator.guest.console import Console

domain = FakeDomain(jobs={"guest": "migration"})
guest = Guest(domain, FakeShell(), Console(Path(sys.argv[1])), None)
print(guest.why_lost(GuestLostError("the connection ended")).brief)
"""


@pytest.mark.slow
def test_a_cause_of_a_lost_guest(copy: Copy, tmp_path: Path) -> None:
    copy.add("cause of a lost guest")
    assert copy.python(LOST, str(tmp_path / "console.log")) == "libvirt had begun a migration of it\n"


SAMPLED = """
import sys, time
from pathlib import Path
from fakes import MACHINE, FakeChannel, FakeDomain, FakeShell
from orchestrator.deadline import Deadline, wait_for
from orchestrator.probes import PROBES, HostView
from orchestrator.run.sampling import Sampling
from orchestrator.store import TrialWriter, read_observations

tick = "#tick 5000000000\\n#file /proc/loadavg 26\\n0.25 0.20 0.18 1/234 12345\\n#end\\n"
shell = FakeShell(channel=FakeChannel([tick.encode()]))
with TrialWriter(Path(sys.argv[1]), "t-01") as writer:

    def readings():
        writer.flush()
        table = read_observations(writer.directory)
        return table.loc[table["source"] == "added", ["t_ns", "name", "value", "origin"]].to_dict("records")

    view = HostView(FakeDomain(), MACHINE, "tcg")
    with Sampling(writer, lambda: 7, shell, view, 0.01).running([]):
        wait_for(lambda: readings() or None, Deadline(20), every=0.01)
    print("added" in PROBES.names(), "/proc/loadavg" in shell.commands[0], readings())
"""


@pytest.mark.slow
def test_a_probe(copy: Copy, tmp_path: Path) -> None:
    assert "added" not in PROBES.names()
    copy.add("probe")
    reading = {"t_ns": 7, "name": "load", "value": 0.25, "origin": "measured"}
    assert copy.python(SAMPLED, str(tmp_path / "t-01")) == f"True True {[reading]}\n"


OVER_STATES = """
import json
import numpy as np
from synthetic import sparse_guest
from orchestrator.model.blocks import map_memory
from orchestrator.model.policies import StateView
from orchestrator.model.second_level_counts import SecondLevelCounts
from orchestrator.model.second_level_tree import decode_tree
from orchestrator.summary.snapshots import counterfactuals

state = StateView.of(sparse_guest(100))
(freed,) = [
    one.tables_freed
    for one in counterfactuals(state, map_memory(state.snapshot), seed=0)
    if one.policy == "added"
]
nothing = np.empty((0, 512), dtype=np.uint64)
tree = decode_tree(np.empty(0, np.int64), nothing, np.empty(0, np.int64), "EPT")
print(json.dumps([freed, len(state.tables), SecondLevelCounts.of(tree).freed["added"]]))
"""


@pytest.mark.slow
def test_a_policy(copy: Copy, tmp_path: Path) -> None:
    code, said = here("model", "policies", "--json")
    assert code == 0
    assert "added" not in {one["name"] for one in json.loads(said)["policies"]}

    copy.add("policy")
    trace = str(tmp_path / "t.npz")
    asked = [trace, "--budget", "1MiB", "--action", "drop", "--json"]
    policies, guest, _, compared, replayed = (
        said
        for _, said in copy.ends(
            ["model", "policies", "--json"],
            ["model", "guest", "sparse", "--set", "span=64MiB", "--json"],
            ["model", "trace", "phases", "-o", trace, "--set", "size=64MiB", "--set", "touches=50"],
            ["model", "compare", *asked],
            ["model", "replay", "--policy", "added", *asked],
        )
    )
    (row,) = [one for one in json.loads(policies)["policies"] if one["name"] == "added"]
    assert row == {"name": "added", "over": ["snapshot", "trace", "tree"], "what": "Frees every other table."}
    assert "added" in {one["policy"] for one in json.loads(guest)["modelled"]}
    by_policy = {one["policy"]: one for one in json.loads(compared)["modelled"]}
    assert by_policy["added"]["misses"] == by_policy["empty"]["misses"] > 0
    assert json.loads(replayed)["modelled"]["misses"] == by_policy["added"]["misses"]

    freed, tables, zapped = json.loads(copy.python(OVER_STATES))
    assert freed == -(-tables // 2) > 0
    assert zapped == 0


@pytest.mark.slow
def test_a_section_with_a_chart(copy: Copy, tmp_path: Path) -> None:
    run = write_run(tmp_path, repeats=2)
    copy.add("chart, or section of the page")
    (made,) = copy.documents(["report", str(run), "--json"])
    page = html.fromstring(Path(made["report"]).read_text())
    (section,) = page.xpath("//section[@id='added']")
    assert "Trials by arm" in section.text_content()
    assert f"{ARMS[0].name}: 2 begun." in section.text_content()
    assert page.xpath("//nav//a[@href='#added']")
    (chart,) = section.xpath(".//div[@class='chart']")
    assert any(f'"{chart.get("id")}"' in (script.text or "") for script in page.xpath("//script"))


PLANNED = """
import sys
from pathlib import Path
from orchestrator.host_kinds import host_kind, is_guest
from orchestrator.plan import make_plan
from orchestrator.scenario import load_scenario
plan = make_plan(load_scenario(Path(sys.argv[1]), kernels_of=lambda _: ["6.12"]))
heavy = {"pandas", "lxml", "libvirt", "paramiko"} & {*sys.modules}
print(plan.host, type(host_kind(plan.host)).__name__, is_guest(plan.host), sorted(heavy))
"""


def test_a_host_kind(copy: Copy, tmp_path: Path) -> None:
    path = scenario(tmp_path, host="added")
    validate = ["validate", "--any-host", path, "--json"]
    code, said = here(*validate)
    assert code == 2
    assert "added" in said
    copy.add("host kind")
    (valid,) = copy.documents(validate)
    assert valid["valid"]
    assert copy.python(PLANNED, path) == "added Box True []\n"
