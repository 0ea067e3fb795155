"""What somebody may have meant who mistyped a name."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

_CUTOFF: Final = 0.6  # of difflib's ratio: a letter or two that are wrong, missing, or swapped
_MOST_LISTED: Final = 40


def suggest(name: str, known: Collection[str], nothing: str = "remove it") -> str:
    """`did you mean 'memory'?`, or all there is, of very many the first; `nothing` where there is none."""
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near!r}?"
    if not known:
        return nothing
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    return f"there are: {', '.join(list(known)[:_MOST_LISTED])}{more}"


def nearest(name: str, known: Collection[str]) -> str | None:
    """The one that is most like `name`; None where nothing is."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_CUTOFF)), None)
