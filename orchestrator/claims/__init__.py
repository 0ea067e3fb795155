"""Claims of the talk, each judged by committed results: docs/claims.md, and `orchestrator claims`.

A claim names its evidence and a criterion for each part; what holds is computed (judge.py), not written down.
"""

from orchestrator.claims.base import Claim, Part, claim_named, every_claim
from orchestrator.claims.committed import Committed, reference_folder
from orchestrator.claims.judge import JudgedClaim, JudgedPart, Verdict, judge

__all__ = [
    "Claim",
    "Committed",
    "JudgedClaim",
    "JudgedPart",
    "Part",
    "Verdict",
    "claim_named",
    "every_claim",
    "judge",
    "reference_folder",
]
