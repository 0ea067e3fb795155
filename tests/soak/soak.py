"""Many short trials of one run in this process: what of the orchestrator grows with them? (docs/soak.md)

    tox -e soak                        200 trials, one table; 1 if something grew
    tox -e soak -- --trials 80 -o FILE

Each trial is warm and has one step. After each, once its guest has gone and it is summed up, what the process
holds is read. On a machine where others run guests, `$ORCHESTRATOR_CACHE` should name a cache of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
from soaked import FEWEST, grown, growths

from orchestrator.cli.scenario import open_scenario
from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import OrchestratorError
from orchestrator.host.cpu import cpu_model
from orchestrator.host.runtime import processes_of
from orchestrator.launch.environment import TrialEnvironment
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import TrialSpec, make_plan
from orchestrator.procfs import kib_lines
from orchestrator.run import execute_plan, new_run_id
from orchestrator.run.machinery import RealMachinery
from orchestrator.run.memory import give_back
from orchestrator.store import TrialWriter, open_run

SCENARIO: Final = Path(__file__).with_name("soak.yaml")
ROOT: Final = SCENARIO.parents[2]


class Soak(RealMachinery):
    """Runs trials as a run does, and reads after each what this process holds. A `Progress`, as well."""

    def __init__(self, run_dir: Path, temporary: Path) -> None:
        # On disk: what is kept here would be counted.
        self._lines = (temporary.parent / "samples.jsonl").open("w+")
        self.not_completed = 0
        self.environment: TrialEnvironment | None = None
        self._run_dir, self._temporary = run_dir, temporary

    def run_trial(
        self, plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        self.environment = environment
        return super().run_trial(plan, environment, writer)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # a program for people

    def trial(self, trial_id: str, number: int, total: int) -> None:
        pass

    def step(self, text: str, number: int, total: int) -> None:
        pass

    def step_done(self, text: str, outcome: str, seconds: float) -> None:
        pass

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None:
        """The trial is summed up; its guest may still be ending."""
        assert self.environment is not None
        self.not_completed += outcome != "completed"
        self.environment.host.wait_for_ends()
        _wait_for_children()
        sample = {**self._sample(self.environment), "seconds": round(seconds, 3)}
        self._lines.write(json.dumps(sample) + "\n")
        self._lines.flush()
        self.note(f"{trial_id}: {outcome} after {seconds:.1f} s")

    @property
    def samples(self) -> list[dict[str, float]]:
        """Of all trials so far, in their order."""
        self._lines.seek(0)
        return [json.loads(line) for line in self._lines]

    def _sample(self, environment: TrialEnvironment) -> dict[str, float]:
        gc.collect()  # what only cycles hold has not grown
        # Nor has what the 4,096 entries of CPython's cache of attributes hold: names. Its own search for
        # leaks clears that, too (test/libregrtest/refleak.py).
        (getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache)()
        give_back()  # as the run does, once this trial is over
        process = psutil.Process()
        return {
            "anonymous_bytes": kib_lines(Path("/proc/self/status").read_text())["RssAnon"],
            "python_blocks": sys.getallocatedblocks(),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208  # one is this listing's
            "threads": process.num_threads(),
            "processes": len({one.pid for one in process.children(recursive=True)})
            + sum(1 for _ in processes_of(environment.runtime)),
            "cache_bytes": disk_bytes(environment.places.cache),
            "runtime_bytes": disk_bytes(environment.runtime),
            "temporary_files": sum(1 for _ in self._temporary.rglob("*")),
            "run_bytes": disk_bytes(self._run_dir),
        }


def _fill_table_of_interned_strings() -> None:
    """Have CPython's table of interned strings get as large as it gets, before anything is measured.

    pathlib interns each part of each path, some 340 in a trial. Strings that are gone keep their places until
    the table is full; it is made anew then, for three times the strings that live (GROWTH_RATE in CPython's
    Objects/dictobject.c). Once, that is twice as large: 1.8 MiB more, after some 180 trials.
    """
    for number in range(1 << 18):
        sys.intern(f"soak {number}")


def _wait_for_children(seconds: float = 5.0) -> None:
    """Give what was ended the time to be reaped (`orchestrator.host.orphans` looks every 50 ms)."""
    end = time.monotonic() + seconds
    while psutil.Process().children(recursive=True) and time.monotonic() < end:
        time.sleep(0.05)


def disk_bytes(folder: Path) -> int:
    """Blocks that everything below a folder has; links count as themselves."""
    return sum(
        path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_symlink() or path.exists()
    )


def main() -> int:
    """Run the soak, print the table, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "soak.json")
    arguments = parser.parse_args()
    if arguments.trials < FEWEST:
        parser.error(f"fewer than {FEWEST} trials have no slope")
    with stop_at_signals(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", dir="/var/tmp")))
        temporary = folder / "tmp"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        document = soak(folder / "results", temporary, arguments.trials)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    found = growths(document["samples"])
    for one in found:
        print(  # noqa: T201  # a program for people
            f"{one.gauge.title}: {one.first:,.1f} to {one.last:,.1f}{one.unit}; {one.slope:+.3f} "
            f"[{one.low:+.3f}, {one.high:+.3f}]{one.unit} a trial; grows: {one.told}"
        )
    wrong = document["not_completed"]
    print(f"{document['trials']} trials, {wrong} of them not completed; samples in {arguments.output}")  # noqa: T201  # as above
    return 1 if wrong or grown(found) else 0


def soak(results: Path, temporary: Path, trials: int) -> dict[str, Any]:
    """Run the trials of the scenario; what was found, as it is committed."""
    scenario = open_scenario(SCENARIO, ROOT / "guests")
    plan = make_plan(scenario, repeats=trials)
    results.mkdir()
    run_dir = results / new_run_id(plan.scenario)
    machinery = Soak(run_dir, temporary)
    _fill_table_of_interned_strings()
    began = time.monotonic()
    with suppress(KeyboardInterrupt):  # what was done by then is kept
        execute_plan(plan, ProjectPaths.beside(ROOT / "guests"), run_dir, machinery, machinery=machinery)
    seconds = time.monotonic() - began
    meta = open_run(run_dir).meta
    return {
        "trials": len(machinery.samples),
        "not_completed": machinery.not_completed,
        "conditions": {
            "written": datetime.now(UTC).date().isoformat(),
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "load_average": [round(one, 1) for one in os.getloadavg()],
            "seconds": round(seconds, 1),
            "accel": meta.accel,
            "commit": meta.git_commit,
            **{name: meta.versions[name] for name in ("python", "libvirt-python", "paramiko")},
            "hypervisor": meta.hypervisor,
        },
        "samples": machinery.samples,
    }


if __name__ == "__main__":
    sys.exit(main())
