"""numba's `njit`, with types: what it decorates keeps its signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit as _njit

Function = TypeVar("Function", bound=Callable[..., Any])

# What is called from Python; orchestrator.store.machine_code keeps its code between processes.
COMPILED: list[Any] = []


def njit(function: Function) -> Function:
    """Compile `function` when it is first called; bounds are not checked."""
    compiled: Function = _njit(nogil=True, boundscheck=False)(function)
    COMPILED.append(compiled)
    return compiled


def inlined(function: Function) -> Function:
    """Compile `function` into whatever calls it: calls that pass arrays cost more than what they do."""
    compiled: Function = _njit(nogil=True, boundscheck=False, forceinline=True)(function)
    return compiled
