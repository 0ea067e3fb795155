"""Patterns of accesses: which page each one is to. A stated pattern stands for a program, which it is not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.snapshot import I64
from orchestrator.suggestion import suggest
from orchestrator.units import PAGE_BYTES, Size

_AT_ONCE: Final = 1 << 18
_ROUNDS: Final = 4  # of a Feistel network: enough that neighbours are far apart
_U64: Final = np.uint64


class AccessPattern(BaseModel, ABC):
    """The docstring says it in a line, the fields are its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @abstractmethod
    def some(self, pages: int, first: int, count: int, rng: np.random.Generator) -> I64:
        """Accesses `first` to `first` + `count` to memory of `pages`, as pages; shape (count,)."""

    def accesses(self, pages: int, count: int, seed: int) -> Iterator[I64]:
        """`count` accesses in pieces."""
        rng = np.random.default_rng(seed)
        for first in range(0, count, _AT_ONCE):
            yield self.some(pages, first, min(_AT_ONCE, count - first), rng)

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """With some parameters. Raises BadInputError."""
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            faults = [(".".join(map(str, one["loc"])) or "parameters", one["msg"]) for one in error.errors()]
            unknown = next((where for where, _ in faults if where not in cls.model_fields), "")
            raise BadInputError(
                "; ".join(f"{where}: {what}" for where, what in faults),
                hint=suggest(unknown, list(cls.model_fields)) if cls.model_fields else "",
            ) from None


class Uniform(AccessPattern):
    """Every page as likely as any other."""

    def some(self, pages: int, first: int, count: int, rng: np.random.Generator) -> I64:  # noqa: ARG002  # as all
        return rng.integers(pages, size=count, dtype=np.int64)


class Zipf(AccessPattern):
    """The page of rank r as often as r**-exponent, few of them hot; ranks lie anywhere in memory."""

    exponent: Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)] = 1.0

    def some(self, pages: int, first: int, count: int, rng: np.random.Generator) -> I64:  # noqa: ARG002  # as all
        # Rank r is drawn as often as x**-exponent has area from r to r + 1: the inverse of its integral.
        drawn, power = rng.random(count), 1.0 - self.exponent
        if abs(power) < 1e-9:
            rank = np.exp(drawn * np.log(pages + 1.0))
        else:
            rank = (1.0 + drawn * ((pages + 1.0) ** power - 1.0)) ** (1.0 / power)
        return scattered(np.clip(rank.astype(np.int64), 1, pages) - 1, pages)


class Sequential(AccessPattern):
    """One address after the other, from the beginning again at the end."""

    step: Annotated[Size, Field(ge=1, le=1 << 40)] = "64B"  # type: ignore[assignment]  # validated as a default

    def some(self, pages: int, first: int, count: int, rng: np.random.Generator) -> I64:  # noqa: ARG002  # as all
        step = self.step % (pages * PAGE_BYTES)
        # Below 2**52 bytes of memory and step; where the product is larger it would wrap.
        places = np.arange(count, dtype=np.int64) * step + first * step % (pages * PAGE_BYTES)
        return places // PAGE_BYTES % pages


class HotSet(AccessPattern):
    """A share of memory, in one stretch at its beginning, gets a share of the accesses; uniform in both."""

    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    touches: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.9

    def some(self, pages: int, first: int, count: int, rng: np.random.Generator) -> I64:  # noqa: ARG002  # as all
        hot = max(1, int(pages * self.share))
        of_hot = (rng.random(count) < self.touches) | (hot == pages)
        return np.where(
            of_hot, rng.integers(hot, size=count), hot + rng.integers(max(1, pages - hot), size=count)
        )


ACCESSES: Final[Mapping[str, type[AccessPattern]]] = {
    "uniform": Uniform,
    "zipf": Zipf,
    "sequential": Sequential,
    "hot": HotSet,
}


def access_pattern(name: str, parameters: Mapping[str, Any]) -> AccessPattern:
    """The pattern `name` with `parameters`. Raises BadInputError."""
    if name not in ACCESSES:
        raise BadInputError(f"no access pattern {name!r}", hint=suggest(name, list(ACCESSES)))
    return ACCESSES[name].of(parameters)


def scattered(number: I64, below: int) -> I64:
    """Each of 0 to `below` - 1 at another place of these, in no order (a Feistel network)."""
    half = max(1, (max(below - 1, 1).bit_length() + 1) // 2)
    mask = _U64((1 << half) - 1)

    def once(value: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        left, right = value >> _U64(half), value & mask
        for turn in range(_ROUNDS):
            mixed = (right + _U64(turn + 1)) * _U64(0x9E3779B97F4A7C15)
            left, right = right, left ^ ((mixed >> _U64(64 - 2 * half)) & mask)
        return left << _U64(half) | right

    found = once(number.astype(np.uint64))
    while (out := found >= _U64(below)).any():
        found[out] = once(found[out])
    return found.astype(np.int64)
