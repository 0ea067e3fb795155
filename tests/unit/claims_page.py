"""Claims of the talk as templates of docs/claims.md print them: judged by results/reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from orchestrator.claims import Committed, JudgedClaim, every_claim, judge, reference_folder
from orchestrator.claims.document import part_rows, verdict_words
from orchestrator.errors import BadInputError
from orchestrator.observation import Origin


@cache
def judged_claims() -> tuple[JudgedClaim, ...]:
    """All of them, in the order of the talk. Raises ValueError where a claim refers to what is not there."""
    committed = Committed(reference_folder())
    try:
        return tuple(judge(claim, committed) for claim in every_claim())
    except BadInputError as error:
        raise ValueError(error.brief) from error


FILTERS: Mapping[str, Callable[..., object]] = {
    "verdict": lambda judged, origin: verdict_words(judged, Origin(origin)),
    "parts": part_rows,
}
GLOBALS: Mapping[str, object] = {"claims": judged_claims, "origins": [origin.value for origin in Origin]}
