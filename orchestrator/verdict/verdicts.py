"""All that is judged of a run: each figure made when it is first asked for, and once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.store import Run
from orchestrator.summary import TrialSummary
from orchestrator.verdict.comparison import Comparison, compare_arms
from orchestrator.verdict.expectations import ExpectationResult, judge
from orchestrator.verdict.figures import RunFigures, figures_of
from orchestrator.verdict.gate import GateResult, read_gate_result


@dataclass(frozen=True)
class RunVerdicts:
    """What may be said of a run, from its plan and its summaries: a comparison resamples 9,999 times."""

    run: Run
    summaries: tuple[TrialSummary, ...]
    _against: dict[str, Comparison] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def figures(self) -> RunFigures:
        """The numbers that are compared."""
        return figures_of(self.run, self.summaries)

    def against(self, base: str) -> Comparison:
        """Every other arm of the run against `base`, at the level and with the seed of `compare`.

        Arms that `compare` would refuse are compared: `forced` says why it would. Raises BadInputError where
        the run has no such arm.
        """
        if base not in self._against:
            self._against[base] = compare_arms(self.figures, base=base, force=True)
        return self._against[base]

    @property
    def comparison(self) -> Comparison | None:
        """Every arm against the first one; None where no arm has begun."""
        return self.against(self.figures.arms[0].name) if self.figures.arms else None

    @cached_property
    def expectation_results(self) -> tuple[ExpectationResult, ...]:
        """Every expectation of the plan, in its order. Raises BadInputError where they cannot be read."""
        return tuple(judge(self))

    @cached_property
    def gate(self) -> GateResult | None:
        """What the baseline said when the run ended; None where it was compared with none."""
        return read_gate_result(self.run.directory)
