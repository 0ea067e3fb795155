"""Made-up guests, one pattern to a file: where pages are mapped, and how tables are touched over time."""

from orchestrator.model.patterns.base import PATTERNS, Pattern, pattern_named

__all__ = ["PATTERNS", "Pattern", "pattern_named"]
