"""What wastes page tables, as their owner can tell from outside: one diagnosis to a file."""

from orchestrator.audit.diagnoses.base import LEAST_BYTES, DIAGNOSES, Kernel, Diagnosis

__all__ = ["LEAST_BYTES", "DIAGNOSES", "Kernel", "Diagnosis"]
