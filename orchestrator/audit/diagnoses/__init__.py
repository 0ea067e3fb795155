"""What wastes page tables, as their owner can tell from outside: one diagnosis to a file."""

from orchestrator.audit.diagnoses.base import DIAGNOSES, LEAST_BYTES, Diagnosis, Kernel

__all__ = ["DIAGNOSES", "LEAST_BYTES", "Diagnosis", "Kernel"]
