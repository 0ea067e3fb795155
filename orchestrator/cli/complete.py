"""What a shell's completion offers for words that only this project knows.

A key is pressed and the shell waits: nothing slow is imported, and what cannot be read offers nothing.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import click
from click.shell_completion import CompletionItem

import orchestrator
from orchestrator.errors import BadInputError, OrchestratorError
from orchestrator.jsontext import parse_json
from orchestrator.shipped import own_and_shipped, scenario_file, scenario_names, shipped
from orchestrator.store import layout
from orchestrator.suggestion import nearest

Offer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_POLICIES: Final = Path(orchestrator.__file__).parent / "model" / "policies"
_MOST_RUNS: Final = 1000


def _offers(find: Callable[[click.Context], Iterable[str]], *, files: bool = False) -> Offer:
    @wraps(find)
    def offer(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        words: list[str] = []
        with suppress(OSError, ValueError, OrchestratorError):  # it only helps to type
            words = sorted({word for word in find(ctx) if word.startswith(incomplete)})
        found = [CompletionItem(word) for word in words]
        # The shell's own file names come first: in bash they drop what came before them. An empty value would
        # make click's script for zsh lose count.
        return [CompletionItem(incomplete or "./", type="file"), *found] if files else found

    return offer


def _results(ctx: click.Context) -> Path:
    return ctx.params.get("results") or Path("results")


def _run_folders(ctx: click.Context) -> list[Path]:
    found = sorted((path.parent for path in _results(ctx).glob(f"*/{layout.PLAN}")), reverse=True)
    return found[:_MOST_RUNS]


def _runs(ctx: click.Context) -> Iterator[str]:
    found = [folder.name for folder in _run_folders(ctx)]
    yield from [*found, *(["last"] if found else [])]


def _arms_of_plan(folder: Path) -> Iterator[str]:
    with suppress(OSError, ValueError, TypeError, KeyError):  # of one run that is broken
        yield from (str(arm["name"]) for arm in parse_json((folder / layout.PLAN).read_bytes())["arms"])


def _arms_of_runs(ctx: click.Context) -> Iterator[str]:
    named = {*(ctx.params.get("runs") or ()), *ctx.args}
    for folder in _run_folders(ctx):
        if not named or folder.name in named:
            yield from _arms_of_plan(folder)


def _arms_of_scenario(ctx: click.Context) -> Iterator[str]:
    from orchestrator.scenario.matrix import expanded
    from orchestrator.yamlfile import read_yaml

    # An option that still lacks its value keeps click from sorting out the arguments before it.
    path = ctx.params.get("scenario_file") or ctx.params.get("file") or next(map(Path, ctx.args), None)
    if path is not None:
        file, _ = expanded(read_yaml(scenario_file(path)))
        arms = file.node(("arms",))
        yield from arms.entries if arms else ()


def trace_policies() -> Iterator[str]:
    """Names of the policies that answer over a trace, read from their source: to import them takes numpy."""
    for path in sorted(_POLICIES.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and "OverTrace" in map(ast.unparse, node.bases):
                for keyword in node.keywords:
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                        yield str(keyword.value.value)


def workload_names(folder: Path | None = None) -> list[str]:
    """Those in a folder of workloads, or the shipped ones."""
    return sorted(path.parent.name for path in (folder or shipped("workloads")).glob("*/workload.yaml"))


def _guests(_ctx: click.Context) -> Iterator[str]:
    for folder in own_and_shipped(Path("guests"), "guests"):
        yield from (path.stem for path in folder.glob("*.yaml"))


complete_runs = _offers(_runs)
complete_runs_or_files = _offers(_runs, files=True)
complete_arms_of_runs = _offers(_arms_of_runs)
complete_arms_of_scenario = _offers(_arms_of_scenario)
complete_trace_policies = _offers(lambda _ctx: trace_policies())
complete_workloads = _offers(lambda _ctx: workload_names())
complete_guests = _offers(_guests)
complete_shipped_scenarios = _offers(lambda _ctx: scenario_names())


Kind: TypeAlias = Literal["scenario", "sweep", "overcommit"]

# What has one of these keys is of that kind, as `orchestrator.scenario.kind` says it of files that are read
# whole, which a unit test compares; all others are scenarios.
_KEYS: Final[Mapping[Kind, frozenset[str]]] = {
    "sweep": frozenset({"overcommit", "compare"}),
    "overcommit": frozenset({"guests"}),
}


def kind_of(file: Path) -> Kind:
    """What a file in `scenarios` is meant for. Raises OSError and ValueError."""
    keys = set(re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE))
    return next((kind for kind, own in _KEYS.items() if keys & own), "scenario")


class ScenarioPath(click.Path):
    """A scenario's file, or its name (`orchestrator.shipped.scenario_file`).

    Names of a `kind` are offered to complete, or all of them.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        super().__init__(path_type=Path)
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        written = Path(os.fsdecode(super().convert(value, param, ctx)))
        found = scenario_file(written)
        if found == written and _is_only_a_name(written):
            known = [*scenario_names(), *scenario_names(Path())]
            near = nearest(str(written), known)
            raise BadInputError(
                f"there is no file {str(written)!r} here, and no scenario of that name",
                hint=f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(set(known)))}",
            )
        return found

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _offers(lambda _ctx: self._names(), files=True)(ctx, param, incomplete)

    def _names(self) -> Iterator[str]:
        for name in [*scenario_names(), *scenario_names(Path())]:
            with suppress(OSError, ValueError):
                if self._kind in {None, kind_of(scenario_file(Path(name)))}:
                    yield name


def _is_only_a_name(written: Path) -> bool:
    """Whether it can only be the name of a scenario: what looks like a file has messages of its own."""
    return len(written.parts) == 1 and not written.suffix and not written.exists()
