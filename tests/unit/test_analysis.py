"""A run is read once and judged once, whatever is made of it; and what it says of its conditions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.analysis.arm_table import split
from orchestrator.analysis.conditions import NOT_COMPARABLE
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli import main
from orchestrator.cli.main import cli
from orchestrator.cli.run import carry_out, run_command
from orchestrator.run.execute import Job
from orchestrator.store import RunWriter
from orchestrator.summary import files
from orchestrator.verdict import comparison, expectations

ROOT = Path(__file__).parents[2]
KEPT = "unplug_shortfall_bytes"
EXPECT: tuple[dict[str, object], ...] = (
    {"metric": KEPT, "arm": "6.12", "at_most": 500.0 * 2**20},
    {"metric": KEPT, "arm": "7.3-pt-reclaim", "versus": "6.12", "at_most": 0.0},
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory = write_run(tmp_path, repeats=5, jitter=9, snapshots=False, expect=EXPECT)
    summary.refresh(directory)
    return directory


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each table was parsed, each expectation judged, and each two arms resampled."""
    counts: Counter[str] = Counter()

    def counted(module: Any, name: str, key: Callable[..., str]) -> None:
        real = getattr(module, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            counts[key(*given)] += 1
            return real(*given, **named)

        monkeypatch.setattr(module, name, wrapped)

    counted(files, "_read_csv", lambda path: f"read {path.name}")
    counted(files, "summarise_run", lambda run: f"summarised {run.id}")
    counted(expectations, "_judged", lambda _, expected: f"judged {expected.arm} {expected.versus}")
    counted(comparison, "differences", lambda *_: "resampled")
    return counts


def ended(directory: Path, *, as_json: bool) -> None:
    """The end of `orchestrator run`, from where its last trial has ended."""
    nothing: Any = None
    job = Job(nothing, (), None)
    context = click.Context(run_command, parent=click.Context(cli, info_name="orchestrator"), info_name="run")
    with pytest.raises(click.exceptions.Exit), context:
        carry_out(context, directory, None, lambda _: job.into(RunWriter.resume(directory)), as_json=as_json)


def typed(*words: str) -> Callable[[Path], None]:
    def run(directory: Path) -> None:
        with pytest.raises(SystemExit):
            main([words[0], str(directory), *words[1:]])

    return run


COMMANDS: dict[str, Callable[[Path], None]] = {
    "show": typed("show"),
    "show --json": typed("show", "--json"),
    "report": typed("report"),
    "compare": typed("compare"),
    "run": lambda directory: ended(directory, as_json=False),
    "run --json": lambda directory: ended(directory, as_json=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_summaries_are_read_once_and_judged_once(
    command: str, run_dir: Path, done: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "_execute", lambda *_: [])
    COMMANDS[command](run_dir)
    tables = [what for what in done if what.startswith("read ")]
    assert tables or done[f"summarised {run_dir.name}"], "nothing was counted"
    assert {what: times for what, times in done.items() if times > 1} == {}
    assert not (tables and done[f"summarised {run_dir.name}"]), "either read, or computed"
    judges = command not in {"compare"}
    assert (done["judged 6.12 None"], done["judged 7.3-pt-reclaim 6.12"]) == (judges, judges)
    # The one comparison of the two arms serves the expectation, the page and the terminal.
    assert done["resampled"] == 1


def test_arms_that_differ_come_first(run_dir: Path) -> None:
    differ, rest = split(RunAnalysis.open(run_dir).groups)
    shown = [row.metric for group in differ for row in group.rows]
    folded = [row.metric for group in rest for row in group.rows]
    assert "guest_page_table_bytes_end" in shown
    assert {"unplug_requested_bytes", "unplug_outcome", "blocks_plugged_after"} & set(shown) == set()
    assert "unplug_requested_bytes" in folded
    assert not set(shown) & set(folded)


def test_under_tcg_every_rate_and_time_is_called_so(run_dir: Path) -> None:
    def noted() -> set[str]:
        groups = RunAnalysis.open(run_dir).groups
        return {row.metric for group in groups for row in group.rows if NOT_COMPARABLE in row.note}

    assert noted() == {"unplug_seconds", "workload_ops_per_second", "workload_p99_seconds"}
    path = run_dir / "summary.csv"
    path.write_text(path.read_text().replace("tcg", "kvm"))
    assert noted() == set()


def test_conditions_are_those_of_the_plan(tmp_path: Path) -> None:
    quick = ROOT / "results" / "reference" / "quickstart"
    said = {one.name: one.value for one in RunAnalysis.open(quick).conditions.rows}
    assert said == {
        "acceleration": "TCG (software emulation)",
        "vCPUs": "2",
        "memory": "1 GiB + up to 2 GiB by virtio-mem",
        "virtio-mem block": "2 MiB",
        "online policy": "online",
        "THP": "as in the guest's image",
    }
    counted = write_run(tmp_path / "counted", snapshots=False)
    path = counted / "meta.json"
    path.write_text(path.read_text().replace('"tcg"', '"tcg-icount"'))
    conditions = RunAnalysis.open(counted).conditions
    assert conditions.rows[0].value == "TCG (software emulation), its clock counts instructions"
    assert conditions.emulated
    # Arms that differ in one say so, each value with its arms; a plan that says nothing claims nothing.
    directory = write_run(tmp_path, snapshots=False)
    plan = json.loads((directory / "plan.json").read_text())
    plan["arms"][0]["setup"] = {"thp": "always"}
    plan["arms"][1]["setup"] = {"thp": "never"}
    (directory / "plan.json").write_text(json.dumps(plan))
    said = {one.name: one.value for one in RunAnalysis.open(directory).conditions.rows}
    assert said == {
        "acceleration": "TCG (software emulation)",
        "THP": "always (6.12), never (7.3-pt-reclaim)",
    }
