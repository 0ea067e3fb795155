"""No two modules import each other, not even within functions or for types only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def circle(imports: Mapping[str, Set[str]]) -> list[str]:
    """Modules of which each imports the one before, the first again at the end; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports: at its top, in functions, and under TYPE_CHECKING."""
    graph = grimp.build_graph("orchestrator", cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def edges(imports: Mapping[str, Set[str]]) -> Iterator[tuple[str, str]]:
    return ((one, other) for one, others in imports.items() for other in others)


def test_no_modules_import_each_other(imports: dict[str, set[str]]) -> None:
    in_a_function = ("orchestrator.cli.lab", "orchestrator.run.lab")
    for_types_only = ("orchestrator.actions.base", "orchestrator.actions.context")
    assert {in_a_function, for_types_only} <= set(edges(imports))
    assert circle(imports) == []


def test_a_circle_would_be_found(imports: dict[str, set[str]]) -> None:
    below = "orchestrator.errors"
    found = circle({**imports, below: {"orchestrator.host.domain"}})
    assert found[0] == found[-1]
    assert {below, "orchestrator.host.domain"} <= set(found)
