"""The shape of a pattern: a pydantic model whose fields are its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.guest_tables import GuestMappings
from orchestrator.model.snapshot import I16, I64, U32
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.older_names import OlderNames
from orchestrator.registry import Registry
from orchestrator.suggestion import suggest
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES, PMD_BYTES, Size

MappedSize = Annotated[Size, Field(ge=PMD_BYTES, le=1 << 52)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1 << 30)]


class Pattern(OlderNames, ABC):
    """One kind of made-up guest; the docstring says it in a line, the fields are its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    older_names: ClassVar = {"let_go": "unmapped", "apart": "spacing"}

    @abstractmethod
    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        """What is mapped at the end."""

    @abstractmethod
    def trace(self, rng: np.random.Generator) -> Trace:
        """What is touched on the way there."""

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """A pattern with some parameters; sizes as text with a unit. Raises BadInputError."""
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            faults = [(".".join(map(str, one["loc"])) or "parameters", one["msg"]) for one in error.errors()]
            brief = "; ".join(f"{where}: {what}" for where, what in faults)
            unknown = next((where for where, _ in faults if where not in cls.model_fields), "")
            raise BadInputError(brief, hint=suggest(unknown, list(cls.model_fields))) from None


PATTERNS: Registry[type[Pattern]] = Registry("pattern", "orchestrator.model.patterns")


def pattern_named(name: str, parameters: Mapping[str, Any]) -> Pattern:
    """The pattern `name` with `parameters`."""
    return PATTERNS[name].of(parameters)


def plain_layout(number: I64, pages: I16, zero_page: I16 | None = None) -> GuestMappings:
    """Anonymous memory, all of it accessed lately."""
    none = np.zeros(len(number), dtype=np.int16)
    return GuestMappings(
        number, pages, none if zero_page is None else zero_page, none, np.zeros(len(number), np.int32)
    )


def tables_of(size_bytes: int) -> int:
    """Last-level tables that a stretch of memory needs from an aligned address on."""
    return -(-size_bytes // PMD_BYTES)


def full_pages(size_bytes: int) -> I16:
    """Entries of each of these tables when every page is mapped; the last one may be in part."""
    tables = tables_of(size_bytes)
    pages = np.full(tables, ENTRIES_PER_TABLE, dtype=np.int16)
    pages[-1] = -(-(size_bytes - (tables - 1) * PMD_BYTES) // PAGE_BYTES)
    return pages


def zipf_touches(rng: np.random.Generator, tables: int, touches: int, exponent: float = 1.0) -> U32:
    """Tables picked with probability 1 / rank**exponent, ranks spread over the ids by chance."""
    weight = np.cumsum(np.arange(1, tables + 1, dtype=np.float64) ** -exponent)
    ranks = np.searchsorted(weight, rng.random(touches) * weight[-1])
    picked: U32 = rng.permutation(tables)[np.minimum(ranks, tables - 1)].astype(np.uint32)
    return picked


def joined(name: str, tables: int, parts: list[tuple[Any, TouchKind]], assumption: str) -> Trace:
    """A trace of several stretches, each of one kind of event."""
    table = np.concatenate([np.asarray(ids, dtype=np.uint32) for ids, _ in parts])
    kind = np.concatenate([np.full(len(ids), event, dtype=np.uint8) for ids, event in parts])
    return Trace(name, tables, table, kind, assumption)
