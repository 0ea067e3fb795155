"""What may be said of a run: arms compared, expectations met or not, a baseline kept or lost.

From summaries and nothing else; `stats` has the mathematics, docs/statistics.md the reasons.
"""

from orchestrator.verdict.baseline import read_baseline, write_baseline
from orchestrator.verdict.comparison import LOST, Comparison, PairOfArms, compare_arms, compare_runs
from orchestrator.verdict.expectations import ExpectationResult
from orchestrator.verdict.figures import ArmFigures, RunFigures, TrialFigures, figures_of
from orchestrator.verdict.gate import Change, Gate, GateResult, read_gate_result, write_gate_result
from orchestrator.verdict.verdicts import RunVerdicts

__all__ = [
    "LOST",
    "ArmFigures",
    "Change",
    "Comparison",
    "ExpectationResult",
    "Gate",
    "GateResult",
    "PairOfArms",
    "RunFigures",
    "RunVerdicts",
    "TrialFigures",
    "compare_arms",
    "compare_runs",
    "figures_of",
    "read_baseline",
    "read_gate_result",
    "write_baseline",
    "write_gate_result",
]
