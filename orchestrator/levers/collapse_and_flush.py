"""`collapse-and-flush`: nearly full ranges become huge pages, and then all second-level tables go."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from orchestrator.levers.base import LEVERS, LeverTarget, Prediction, Pulled, Scope
from orchestrator.levers.collapse import Collapse
from orchestrator.levers.flush import Flush
from orchestrator.records.step import StepOutcome


@LEVERS.register("collapse-and-flush")
class CollapseAndFlush(Collapse):
    """First `collapse`, so that faults map by huge pages what `flush` then drops."""

    scope: ClassVar = Scope.HOST
    touching_frees: ClassVar = False  # faults make tables anew of what the flush freed
    cost: ClassVar = f"that of both: {Collapse.cost}; {Flush.cost}"
    undone: ClassVar = f"{Flush.undone}; {Collapse.undone}"

    def refusal(self, target: LeverTarget) -> str:
        return Flush().refusal(target) or super().refusal(target)

    def predict(self, target: LeverTarget, held: int | None) -> Prediction:
        needed = target.memory.needed(self.chosen(target))
        return replace(super().predict(target, held), tables_at_least=0, tables_at_most=needed)

    def pull(self, target: LeverTarget) -> Pulled:
        first = super().pull(target)
        if first.outcome is StepOutcome.REFUSED and first.message:
            return first
        then = Flush().pull(target)
        worse = then.outcome if then.outcome is not StepOutcome.DONE else first.outcome
        message = ", ".join(one for one in (first.message, then.message) if one)
        return Pulled(worse, {**first.values, **then.values}, message)
