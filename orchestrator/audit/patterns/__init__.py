"""What page tables of processes look like when memory is wasted on them, one pattern to a file."""

from orchestrator.audit.patterns.base import LEAST_BYTES, PATTERNS, Kernel, Pattern

__all__ = ["LEAST_BYTES", "PATTERNS", "Kernel", "Pattern"]
