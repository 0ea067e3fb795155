"""One trial of a run that exists, in a process of its own: `python -m orchestrator.run.worker`.

    RUN_DIR TRIAL GUESTS_DIR ACCEL CONNECT PARENT BOOT

CONNECT is empty where the plan says where. PARENT is the process of the run. With BOOT, only the boot that
the trial starts from is made and saved; it has a folder like a trial's, under that name.

Says what it does on standard output, a JSON object to a line. The trial's folder has all that came of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from orchestrator.errors import ExitCode, OrchestratorError, host_failure
from orchestrator.host.runtime import kill_guests
from orchestrator.interrupts import stopped_by_signals
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import Plan
from orchestrator.records.events import TrialEnd
from orchestrator.run.machinery import Machinery, RealMachinery
from orchestrator.run.unit import Unit
from orchestrator.store import TrialWriter, layout


class _Telling:
    """Progress, as lines of JSON."""

    def note(self, text: str) -> None:
        print(json.dumps({"text": text}), flush=True)  # noqa: T201  # whoever started this reads it

    def learn(self, facts: Mapping[str, object]) -> None:
        """What the trial finds out of a host of its own: for meta.json, which is not ours to write."""
        print(json.dumps({"learned": dict(facts)}), flush=True)  # noqa: T201  # as above

    def trial(self, trial_id: str, number: int, total: int) -> None:
        """Whoever started this says so."""

    def step(self, text: str, number: int, total: int) -> None:
        self.note(f"step {number} of {total}: {text}" if number else text)

    def step_done(self, text: str, outcome: str, seconds: float) -> None:
        self.note(f"{text}: {outcome} after {seconds:.0f} s")

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None:
        """Whoever started this says so."""


def main(words: Sequence[str], machinery: Machinery | None = None) -> int:
    """Run the trial that the words say. The exit code is 0 where its folder says how it ended."""
    run_dir, trial_id, guests = Path(words[0]), words[1], Path(words[2])
    accel, connect, parent, boot = words[3], words[4], int(words[5]), words[6]
    plan = Plan.from_json((run_dir / layout.PLAN).read_bytes()).model_copy(update={"accel": accel})
    progress, name = _Telling(), boot or trial_id
    try:
        writer = TrialWriter(run_dir / (layout.BOOTS if boot else layout.TRIALS) / name, name)
    except OSError as error:  # whoever started this reports it
        print(host_failure(error).brief, file=sys.stderr)  # noqa: T201  # as above
        return ExitCode.INFRASTRUCTURE
    try:
        with stopped_by_signals(lambda: None, kill_guests), ExitStack() as stack:
            if os.getppid() != parent:  # it was gone before we asked for the signal
                return ExitCode.INTERRUPTED
            places = ProjectPaths.beside(guests)
            unit = Unit.of(plan, places, progress, connect or None, machinery or RealMachinery())
            runtime = stack.enter_context(unit.machinery.runtime(run_dir))
            unit.execute_from_here(
                trial_id,
                writer,
                runtime,
                found=lambda _: None,  # the run itself has found it
                learn=progress.learn,
                boot=bool(boot),
            )
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (OrchestratorError, OSError) as raised:
        failure = host_failure(raised) if isinstance(raised, OSError) else raised
        print(failure.brief, file=sys.stderr)  # noqa: T201  # whoever started this reads it
        if writer.closed:  # the trial had ended, and what came after it failed
            return ExitCode.INFRASTRUCTURE
        # Before the trial had a guest to speak of: its folder shall say it all the same.
        writer.end(
            TrialEnd(
                t_ns=0, outcome="failed", error=failure.brief, details=failure.details, hint=failure.hint
            )
        )
    return ExitCode.COMPLETED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
