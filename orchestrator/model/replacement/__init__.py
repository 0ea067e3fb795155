"""Whom to take when page tables do not fit a budget, one policy to a file. `REPLACEMENTS` finds them all."""

from orchestrator.model.replacement.base import REPLACEMENTS, Frees, Replacement

__all__ = ["REPLACEMENTS", "Frees", "Replacement"]
