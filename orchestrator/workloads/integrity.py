"""Contents under reclaim: filled, checked, discarded and filled again by threads beside each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError
from orchestrator.guest.shell import GuestShell
from orchestrator.workloads.base import DRIVERS, WorkloadResult
from orchestrator.workloads.holder import Holder
from orchestrator.workloads.program import answer_of, checked_figures

# Where the program leaves what it found when it is ended; a tmpfs in the guest.
RESULT: Final = "/run/integrity.json"

_FIGURES: Final = ("mismatches", "stuck_threads", "checked_bytes")
_MOST_FINDINGS: Final = 64
_KEY = re.compile(r"[a-z_]{1,32}")


@DRIVERS.register("integrity")
class Integrity(Holder):
    """A holder that goes on working until it is stopped, and says then what it found."""

    def words(self, seed: int) -> list[str]:
        return [*super().words(seed), f"seed={seed % 2**31}"]

    def variables(self) -> dict[str, str]:
        return {"INTEGRITY_RESULT": RESULT}

    def start(self, shell: GuestShell, *, seed: int, deadline: Deadline) -> dict[str, float]:
        # What one before left must not be taken for what this one finds.
        shell.run(["rm", "-f", RESULT], seconds=deadline.remaining)
        return super().start(shell, seed=seed, deadline=deadline)

    def stop(self, shell: GuestShell, *, deadline: Deadline) -> WorkloadResult:
        ended = super().stop(shell, deadline=deadline)
        read = shell.run(["cat", RESULT], seconds=deadline.remaining, check=False)
        if read.code != 0 and ended.gone:
            return ended
        if read.code != 0:
            raise CommandError(
                f"{self.name} left no result",
                details="it was ended, and left nothing: whether contents were right is not known",
            )
        try:
            return parse_result(read.text)
        except ValueError as error:
            raise CommandError(f"{self.name} left no result: {error}", details=read.text[:500]) from None


def parse_result(text: str) -> WorkloadResult:
    """What the program found. Raises ValueError when that is not such a line of JSON."""
    answer = answer_of(text)
    if not isinstance(answer, Mapping):
        raise ValueError("it is no object")  # noqa: TRY004  # wrong text, not a wrong argument
    findings = answer.get("findings")
    if not isinstance(findings, list) or len(findings) > _MOST_FINDINGS:
        raise ValueError(f"it has no list of at most {_MOST_FINDINGS} findings")
    return WorkloadResult(checked_figures(answer.get("figures"), _FIGURES), tuple(map(_finding, findings)))


def _finding(found: object) -> dict[str, str]:
    texts = found if isinstance(found, Mapping) else {}
    if not {"kind", "text"} <= texts.keys() or not all(
        isinstance(key, str) and _KEY.fullmatch(key) and isinstance(text, str) for key, text in texts.items()
    ):
        raise ValueError("a finding is no mapping of texts with its kind")
    return {key: text[:500] for key, text in texts.items()}
