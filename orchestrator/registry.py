"""Named things that live one to a file: actions, probes, workloads, policies.

A file of the package registers what it defines; the registry imports every file of that package
once, so that adding a file is all it takes to add a thing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from orchestrator.errors import BadInputError
from orchestrator.suggestion import suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps declared names to the things that modules of `package` register."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._things: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files the decorated thing under `name`."""

        def file_it(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._things[name] = thing
            return thing

        return file_it

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True  # first, since what is imported may look something up
            try:
                package = importlib.import_module(self._package)
                for module in pkgutil.iter_modules(package.__path__):
                    importlib.import_module(f"{self._package}.{module.name}")
            except BaseException:
                self._loaded = False  # half a registry would say of the rest that it does not exist
                raise

    def __getitem__(self, name: str) -> T:
        self._load()
        try:
            return self._things[name]
        except KeyError:
            raise BadInputError(
                f"no {self.kind} is called {name!r}", hint=suggest(name, self.names())
            ) from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._things

    def __iter__(self) -> Iterator[tuple[str, T]]:
        self._load()
        return iter(sorted(self._things.items()))

    def names(self) -> list[str]:
        """All declared names, sorted."""
        return [name for name, _ in self]
