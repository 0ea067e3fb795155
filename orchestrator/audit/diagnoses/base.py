"""The shape of a diagnosis: it looks at all processes, says what it sees, and what to type next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.audit.reading import Advice, ProcessReading
from orchestrator.registry import Registry
from orchestrator.units import MIB

LEAST_BYTES: Final = MIB
"""Page tables of less are not worth a sentence."""


@dataclass(frozen=True)
class Kernel:
    """What bears on advice. `pt_reclaim`: whether it has CONFIG_PT_RECLAIM; None if that is not known."""

    release: str
    pt_reclaim: bool | None


class Diagnosis(ABC):
    """One diagnosis; registered by `@DIAGNOSES.register("name")` as an instance."""

    @abstractmethod
    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Advice]:
        """Where it is seen. Amounts are of page tables, and at least LEAST_BYTES."""


DIAGNOSES: Registry[Diagnosis] = Registry("diagnosis", "orchestrator.audit.diagnoses")


def restart(process: ProcessReading) -> str:
    """What gives all page tables of a process back."""
    return f"systemctl restart {process.unit}" if process.unit else f"restart process {process.pid}"
