"""An audit as JSON has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from orchestrator.audit.reading import Amount, Audit


def document(audit: Audit) -> dict[str, Any]:
    """Its fields by their names; an amount is `bytes`, which may be null, and `reason`."""
    found: dict[str, Any] = _plain(audit)
    found["cost"]["cpu_seconds_per_gib"] = audit.cost.seconds_per_gib
    return found


def _plain(value: object) -> Any:  # whatever JSON has
    if isinstance(value, Amount):
        return {"bytes": value.value, "reason": value.reason}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return value
