"""The file that `model sweep` reads: a grid over what `model overcommit` or `model compare` is asked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationError, model_validator

from orchestrator.errors import Problem
from orchestrator.host.machine import Frozen
from orchestrator.model.policies import OverTrace
from orchestrator.model.replay import EvictionAction
from orchestrator.scenario.overcommit import KnownPolicy, OvercommitText, load_overcommit
from orchestrator.units import PAGE_BYTES, Size
from orchestrator.yaml_messages import YamlProblem, explain
from orchestrator.yamlfile import YamlFile, raise_problems, read_yaml

MOST_POINTS: Final = 10_000
MOST_AXES: Final = 6
SHIPPED: Final = "shipped"

Value: TypeAlias = str | int | float
"""A value of the grid, as people write it: `256GiB`, `0.8`."""


def _all_different(values: list[Any]) -> list[Any]:
    if len(set(map(str, values))) < len(values):
        raise ValueError("a value stands here twice; name each once")
    return values


Different = AfterValidator(_all_different)
Policies = Annotated[list[KnownPolicy], Field(min_length=1), Different]
Actions = Annotated[list[EvictionAction], Field(min_length=1), Different]
Values = Annotated[list[Value], Field(min_length=1, max_length=200), Different]


class OvercommitSweepText(Frozen):
    """Keys of a file of `model overcommit`, each with the values that it takes in turn."""

    file: Annotated[str, Field(min_length=1)]
    """Beside this one."""
    grid: Annotated[dict[str, Values], Field(min_length=1, max_length=MOST_AXES)]
    """`host.memory: [128GiB, 256GiB]`."""
    policies: Policies | None = None
    """Instead of the file's; likewise the next two."""
    actions: Actions | None = None
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None


class CompareSweepText(Frozen):
    """What `model compare` is asked, with the values that it takes in turn."""

    traces: Annotated[list[str], Field(min_length=1, max_length=100), Different]
    """Files of `model trace`, beside this one."""
    budgets: Annotated[
        list[Annotated[Size, Field(ge=PAGE_BYTES)]], Field(min_length=1, max_length=200), Different
    ]
    other_node: Annotated[list[Size], Field(min_length=1, max_length=200), Different] | None = None
    """Room for tables that are migrated; without bound if left out."""
    policies: Policies | None = None
    """All that answer over a trace, if left out."""
    actions: Actions = Field(default_factory=lambda: list(EvictionAction))
    seeds: Annotated[int, Field(ge=1, le=100)] = 1


class SweepText(Frozen):
    """The whole file."""

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=1000)] = ""
    overcommit: OvercommitSweepText | None = None
    compare: CompareSweepText | None = None
    costs: Annotated[list[str], Field(min_length=1, max_length=20), Different] = Field(
        default_factory=lambda: [SHIPPED]
    )
    """Files of `model calibrate`, beside this one, or `shipped`."""

    @model_validator(mode="after")
    def _one_question(self) -> SweepText:
        if (self.overcommit is None) == (self.compare is None):
            raise ValueError("say either `overcommit` or `compare`; the other is a sweep of its own")
        return self


@dataclass(frozen=True)
class OvercommitPoint:
    """One combination: `values` by the grid's key, in bytes and seconds, and the question that it makes."""

    values: Mapping[str, Value]
    asked: OvercommitText


@dataclass(frozen=True)
class Sweep:
    """A checked file: what is to be computed, and what it was made from."""

    text: SweepText
    folder: Path
    points: tuple[OvercommitPoint, ...]
    """Of `overcommit`; those of `compare` are what its lists make."""
    sha256: str
    """Of this file and all that it names: with the number of a task it says which one that is, anywhere."""

    @property
    def points_in_all(self) -> int:
        """How many combinations there are of all that is varied."""
        asked = self.text.compare
        if asked is None:
            return len(self.points) * len(self.text.costs)
        rooms = len(asked.other_node) if asked.other_node else 1
        return len(asked.traces) * len(asked.budgets) * rooms * asked.seeds * len(self.text.costs)

    def path(self, name: str) -> Path:
        """A file that the sweep names."""
        return self.folder / name


def load_sweep(path: Path) -> Sweep:
    """Read the file, and the one that it varies.

    Raises FileProblemsError with every fault, by line and column.
    """
    file = read_yaml(path)
    problems = list(file.repeated)
    try:
        text = SweepText.model_validate(file.data)
    except ValidationError as error:
        raise_problems(problems + file.problems(error, SweepText))
        raise
    folder, named = path.absolute().parent, [name for name in text.costs if name != SHIPPED]
    problems += _missing(file, folder, ("costs",), named)
    points: tuple[OvercommitPoint, ...] = ()
    used = [path, *(folder / name for name in named)]
    if text.compare:
        used += [folder / name for name in text.compare.traces]
        problems += _missing(file, folder, ("compare", "traces"), text.compare.traces)
        many = Sweep(text, folder, (), "").points_in_all
        if many > MOST_POINTS:
            problems.append(
                file.problem(("compare",), f"{many:,} points", f"at most {MOST_POINTS:,}", key=True)
            )
    if text.overcommit:
        base = folder / text.overcommit.file
        used.append(base)
        if not base.is_file():
            where, wrong = ("overcommit", "file"), f"there is no file {str(base)!r}"
            problems.append(file.problem(where, wrong, "name one beside this file"))
        else:
            load_overcommit(base)  # its own faults first, where they stand
            found, faults = _points(file, text.overcommit, read_yaml(base).data)
            points, problems = tuple(found), problems + faults
    raise_problems(problems)
    return Sweep(text, folder, points, hashlib.sha256(b"".join(map(_digest, used))).hexdigest())


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _missing(file: YamlFile, folder: Path, at: tuple[str, ...], names: Sequence[str]) -> Iterator[Problem]:
    for name in names:
        if not (folder / name).is_file():
            node = file.node(at)
            listed = node.plain() if node else []
            number = listed.index(name) if isinstance(listed, list) and name in listed else 0
            yield file.problem((*at, number), f"there is no file {str(folder / name)!r}", "check the path")


def _points(
    file: YamlFile, asked: OvercommitSweepText, base: Any
) -> tuple[list[OvercommitPoint], list[Problem]]:
    at = ("overcommit", "grid")
    over = {"policies": asked.policies, "actions": asked.actions, "seeds": asked.seeds}
    base = base | {key: value for key, value in over.items() if value is not None}
    problems: list[Problem] = []
    for key, values in asked.grid.items():
        problems += _faults_of_axis(file, (*at, key), key, values, base)
    if problems:
        return [], problems
    if (many := math.prod(len(values) for values in asked.grid.values())) > MOST_POINTS:
        return [], [file.problem(at, f"{many:,} points", f"at most {MOST_POINTS:,}", key=True)]
    points: list[OvercommitPoint] = []
    for combination in product(*asked.grid.values()):
        chosen = dict(zip(asked.grid, combination, strict=True))
        try:
            made = _checked(base, chosen)
        except ValidationError as error:
            fault = _first_fault(error, "")
            words = ", ".join(f"{key} {value}" for key, value in chosen.items())
            return [], [file.problem(at, f"with {words}: {fault.wrong}", fault.right, key=True)]
        plain = made.model_dump(mode="json")
        points.append(OvercommitPoint({key: _value_at(plain, key) for key in asked.grid}, made))
    return points, []


def _faults_of_axis(
    file: YamlFile, at: tuple[str, ...], key: str, values: Sequence[Value], base: Any
) -> Iterator[Problem]:
    if key in {"policies", "actions", "version", "name", "description"}:
        wrong, right = f"{key!r} is no axis", "every policy with every action is played at every point"
        yield file.problem(at, wrong, right, key=True)
        return
    meant: set[Value] = set()
    for number, value in enumerate(values):
        try:
            plain = _value_at(_checked(base, {key: value}).model_dump(mode="json"), key)
        except ValidationError as error:
            fault = _first_fault(error, value)
            yield file.problem((*at, number), fault.wrong, fault.right)
            continue
        except KeyError:
            wrong, right = f"the file has no {key!r}", "name one of its keys, as in host.memory"
            yield file.problem(at, wrong, right, key=True)
            return
        if plain in meant:  # `1GiB` and `1024MiB`
            yield file.problem((*at, number), f"{value} is here twice", "name each value once")
        meant.add(plain)


def _first_fault(error: ValidationError, value: Value) -> YamlProblem:
    return explain(error, OvercommitText, lambda _: True, lambda _: str(value), ())[0]


def _checked(base: Any, chosen: Mapping[str, Value]) -> OvercommitText:
    """The file with some values in the place of its own. Raises KeyError where it has no such place."""
    data = deepcopy(base)
    for key, value in chosen.items():
        *way, last = key.split(".")
        place = data
        for part in way:
            place = place[_index(place, part)]
        if not isinstance(place, dict | list):
            raise KeyError(key)
        place[_index(place, last, new=True)] = value
    return OvercommitText.model_validate(data)


def _index(place: Any, part: str, *, new: bool = False) -> Any:
    """`part` as what stands in a mapping or a list. Raises KeyError where neither has it."""
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return int(part)
    if isinstance(place, dict) and (new or part in place):
        return part
    raise KeyError(part)


def _value_at(plain: Any, key: str) -> Value:
    """A value of the checked file, in bytes and seconds. Raises KeyError where it is no scalar."""
    for part in key.split("."):
        plain = plain[_index(plain, part)]
    if isinstance(plain, bool) or not isinstance(plain, Value):
        raise KeyError(key)
    return plain


def policies_of(asked: CompareSweepText) -> tuple[str, ...]:
    """Those that are compared."""
    return tuple(asked.policies or OverTrace.names())
