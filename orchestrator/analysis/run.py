"""One reading of one run, for all that is said of it: terminal, page, and what other programs read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from orchestrator.analysis.arm_table import Group, comparison
from orchestrator.analysis.arms import ArmView, RunView, TrialView, view_run
from orchestrator.analysis.attribution import Attribution, CheckedSnapshot, attribution_check, attributions
from orchestrator.analysis.conclusions import conclusions, statistic
from orchestrator.analysis.conditions import Conditions, conditions_of
from orchestrator.analysis.findings import FindingRow, finding_rows
from orchestrator.analysis.model_check import ModelCheck, model_checks
from orchestrator.analysis.moments import MomentTable, moment_table
from orchestrator.analysis.oom_kills import KillRow, kill_rows, kill_sentences
from orchestrator.analysis.second_level import MomentRow, moment_rows
from orchestrator.store import Run, open_run
from orchestrator.summary import TimeSpent, TrialSummary, load, of_known_host, time_spent
from orchestrator.verdict import RunVerdicts


@dataclass(frozen=True)
class RunAnalysis:
    """A run folder as it was when it was opened. Summaries are read once, the rest when it is asked for.

    `verdicts` are what is judged: arms compared, expectations, the baseline.
    """

    run: Run
    verdicts: RunVerdicts

    @classmethod
    def of(cls, run: Run, summaries: Iterable[TrialSummary] | None = None) -> Self:
        """Of an open run; `summaries` where the caller has them already, else those that are saved."""
        found = load(run) if summaries is None else summaries
        return cls(run, RunVerdicts(run, of_known_host(tuple(found))))

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Of a run folder. Raises BadInputError when it is none."""
        return cls.of(open_run(directory))

    def ended(self) -> Self:
        """The same run, whose folder now says how it ended: nothing is summed up or judged again."""
        return replace(self, run=open_run(self.run.directory))

    @property
    def summaries(self) -> tuple[TrialSummary, ...]:
        """Of all trials that have begun and count, in the order of the plan."""
        return self.verdicts.summaries

    @cached_property
    def view(self) -> RunView:
        """Arms with their trials; observations and steps of these are read when they are asked for."""
        return view_run(self.run, self.summaries)

    @property
    def arms(self) -> tuple[ArmView, ...]:
        """The arms that have begun, in the order of the scenario."""
        return self.view.arms

    @property
    def trials(self) -> list[TrialView]:
        """All trials that have begun, arm by arm."""
        return self.view.trials

    @cached_property
    def conclusions(self) -> tuple[str, ...]:
        """What came out, in some eight sentences."""
        return tuple(conclusions(self.view, self.verdicts.comparison))

    @cached_property
    def kill_sentences(self) -> tuple[str, ...]:
        """OOM kills in the guest and on the host, if there were any; `conclusions` begin with them."""
        return tuple(kill_sentences(self.view))

    @cached_property
    def statistic(self) -> tuple[str, ...]:
        """What the figures of an arm are, in a line; none where each arm has one trial."""
        return tuple(statistic(self.arms))

    @cached_property
    def conditions(self) -> Conditions:
        """What guests were and what ran them: no figure means anything without."""
        return conditions_of(self.run, self.summaries)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The table of arms: metrics down, arms across."""
        return tuple(comparison(self.arms, self.verdicts.comparison))

    @cached_property
    def attribution_check(self) -> tuple[CheckedSnapshot, ...]:
        """What workloads put into memory, and what blocks were blamed on."""
        return tuple(attribution_check(self.view))

    @cached_property
    def attributions(self) -> tuple[Attribution, ...]:
        """Recall and precision of each class that was injected."""
        return tuple(attributions(self.attribution_check))

    @cached_property
    def model_checks(self) -> tuple[ModelCheck, ...]:
        """Arms of which one's model says what the other's kernel did."""
        return tuple(model_checks(self.view))

    @cached_property
    def findings(self) -> tuple[FindingRow, ...]:
        """Integrity findings: the first of all trials, the bad ones first."""
        return tuple(finding_rows(self.view))

    @cached_property
    def oom_kills(self) -> tuple[KillRow, ...]:
        """Whom OOM killers ended: the first of all trials."""
        return tuple(kill_rows(self.view))

    @cached_property
    def moments(self) -> MomentTable:
        """What was read at each moment of each arm."""
        return moment_table(self.view)

    @cached_property
    def second_level(self) -> tuple[MomentRow, ...]:
        """Second-level tables at each moment of each arm; none where there are no such tables."""
        return tuple(moment_rows(self.view))

    @cached_property
    def time_spent(self) -> TimeSpent | None:
        """Where the time of the run went, where that is known."""
        return time_spent(self.run)
