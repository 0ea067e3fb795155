"""What two arms differ in, key by key, and whether two runs may be compared at all.

A part of an arm is read through the model that wrote it, so that what was not there when an older version
wrote it has its default: a key that was added since is no difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from orchestrator.errors import BadInputError
from orchestrator.host.kvm_host import NESTED_KERNEL, NESTED_MACHINE
from orchestrator.host.machine import HostSetup, Machine
from orchestrator.host_kinds import LOCAL, is_guest
from orchestrator.jsontext import parse_json
from orchestrator.plan import PlannedStep
from orchestrator.scenario.model import Setup
from orchestrator.verdict.figures import ArmFigures, RunFigures
from orchestrator.verdict.hosts import OF_A_HOST, are_blocks

# Of RunFigures.facts: what it is for people, and which wider word of `--varies` includes it.
_FACTS: Final = {
    "host_cpu": ("host CPU", "host"),
    "host_kernel": ("host kernel", "host"),
    "host_thp": ("host transparent huge pages", "host"),
    "qemu": ("QEMU", "host"),
    "libvirt": ("libvirt", "host"),
    "image": ("image", "guest"),
}
# What may be declared to be what two runs differ in; all else that differs makes them refuse.
VARIES: Final = ("kernel", "guest", "machine", "setup", "kernel_args", "start", "host", "steps", *_FACTS)

_RESOLVED: Final = {"resolved": True}  # sizes and durations in a plan are numbers
_MOST_KEYS: Final = 4  # in one sentence: a step that is put in moves all that follow
_ABSENT: Final = "nothing"

Flat = dict[str, str]


def refuse_unlike(
    base: RunFigures, other: RunFigures, varies: Collection[str], *, force: bool
) -> tuple[list[tuple[ArmFigures, ArmFigures]], list[str], list[str]]:
    """The arms that two runs have in common, what is forced, and what is not known of one of them.

    Raises BadInputError for what differs, is not in `varies` and not forced.
    """
    both = [(one, arm) for arm in other.arms if (one := base.arm(arm.name))]
    if not both:
        raise BadInputError(
            f"{base.run} and {other.run} have no arm in common",
            hint=f"{base.run} has {_names(base)}; {other.run} has {_names(other)}",
        )
    unlike = list(_runs_differ(base, other))
    unlike += _facts_differ(base, other, both, varies)
    for one, arm in both:
        unlike += [*accel_differs(one, arm), *_arms_differ(one, arm, varies)]
    refuse(unlike, force=force)
    return both, unlike, list(_unknown(base, other, both))


def refuse(unlike: Sequence[str], *, force: bool) -> None:
    """Raise BadInputError where something is unlike, unless it is forced."""
    if unlike and not force:
        raise BadInputError(
            f"these would be compared for more than one reason: {unlike[0]}",
            details="\n".join(unlike[1:]),
            hint="--varies KEY   where that is the question, or --force   which the result will say",
        )


def accel_differs(first: ArmFigures, second: ArmFigures) -> Iterator[str]:
    """Times and second-level tables under KVM are not those under emulation."""
    if first.accel != second.accel:
        yield f"acceleration of {second.name}: {first.accel or 'unknown'} against {second.accel or 'unknown'}"


def alike(first: ArmFigures, second: ArmFigures) -> bool:
    """Whether two arms are known to be one thing under two names."""
    return (
        bool(first.does)
        and (first.kernel, first.accel) == (second.kernel, second.accel)
        and not list(_arms_differ(first, second, ()))
        and set(first.does) == set(second.does)
    )


def _runs_differ(base: RunFigures, other: RunFigures) -> Iterator[str]:
    if base.schema_version != other.schema_version:
        yield f"schema version: {base.schema_version} against {other.schema_version}"
    if base.scenario != other.scenario:
        yield f"scenario: {base.scenario} against {other.scenario}"


def _facts_differ(
    base: RunFigures,
    other: RunFigures,
    both: Sequence[tuple[ArmFigures, ArmFigures]],
    varies: Collection[str],
) -> Iterator[str]:
    blocks = are_blocks(base, other, varies)
    for key, (words, wider) in _FACTS.items():
        if not {key, wider}.isdisjoint(varies):
            continue
        if key == "host_thp" and all(_sets_thp(arm) for pair in both for arm in pair):
            continue  # the arms say what it was, whatever the host had
        if blocks and key in OF_A_HOST:
            for name in sorted(base.hosts.keys() & other.hosts.keys()):
                one, another = (run.hosts[name].get(OF_A_HOST[key]) for run in (base, other))
                if one and another and one != another:
                    yield f"{words} of {name} ({key}): {one} against {another}"
            continue
        one, another = base.facts.get(key), other.facts.get(key)
        if one is not None and another is not None and one != another:
            yield f"{words} ({key}): {one} against {another}"


def _sets_thp(arm: ArmFigures) -> bool:
    return _parts(arm).get("host", {}).get("setup.thp", '"host"') != '"host"'


def _arms_differ(first: ArmFigures, second: ArmFigures, varies: Collection[str]) -> Iterator[str]:
    if first.kernel != second.kernel and "kernel" not in varies:
        yield f"kernel of {second.name}: {first.kernel or 'unknown'} against {second.kernel or 'unknown'}"
    elif first.build and second.build and first.build != second.build and "kernel" not in varies:
        yield f"kernel of {second.name}: {first.build[:120]} against {second.build[:120]}"
    one, other = _parts(first), _parts(second)
    for part in one:
        if part in other and part not in varies and one[part] != other[part]:
            yield f"{part} of {second.name}: {_unlike_keys(one[part], other[part])}"


def _unlike_keys(one: Flat, other: Flat) -> str:
    """The keys that are not the same, with both values."""
    keys = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
    names = [
        f"{key} {one.get(key, _ABSENT)} against {other.get(key, _ABSENT)}".strip()
        for key in keys[:_MOST_KEYS]
    ]
    more = [f"and {len(keys) - _MOST_KEYS} more"] if len(keys) > _MOST_KEYS else []
    return ", ".join([*names, *more])


def _unknown(
    base: RunFigures, other: RunFigures, both: Sequence[tuple[ArmFigures, ArmFigures]]
) -> Iterator[str]:
    for run, arms in ((base, [one for one, _ in both]), (other, [arm for _, arm in both])):
        # The host of a nested trial is a guest of its own: the arms say what it is.
        nested = any(is_guest(_parts(arm).get("host", {}).get("host", "").strip('"')) for arm in arms)
        facts = [
            key
            for key in _FACTS
            if key not in run.facts and not (nested and key in {"host_kernel", "host_thp"})
        ]
        parts = [key for key in _READ if any(key not in _parts(arm) for arm in arms)]
        if facts or parts:
            yield f"{run.run} does not say its {', '.join([*parts, *facts])}: taken for the same"


def _parts(arm: ArmFigures) -> dict[str, Flat]:
    """What an arm does, part by part; without what its plan does not say and has no default."""
    if not arm.does:
        return {}
    parts = {}
    for name, read in _READ.items():
        raw = arm.does.get(name)
        try:
            value = read(None if raw is None else parse_json(raw))
        except (ValueError, ValidationError, BadInputError, TypeError, AttributeError):
            value = parse_json(raw) if raw and _is_json(raw) else raw  # of another version, or by hand
        if value is not None:
            parts[name] = dict(_flat(value))
    return parts


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _machine(value: Any) -> Any:  # here and below: any JSON
    return None if value is None else Machine.model_validate(value, context=_RESOLVED).model_dump(mode="json")


def _setup(value: Any) -> Any:
    return Setup.model_validate(value or {}, context=_RESOLVED).model_dump(mode="json")


def _host(value: Any) -> Any:
    """The host as a plan asks for it. Up to now a list, and only where it is not this machine."""
    if isinstance(value, list):
        value = dict(zip(("host", "kernel", "setup", "machine"), value, strict=False))
    value = value or {}
    where = value.get("host", LOCAL)
    setup = HostSetup.model_validate(value.get("setup") or {}, context=_RESOLVED)
    host = {"host": where, "setup": setup.model_dump(mode="json")}
    if is_guest(where):
        host["kernel"] = value.get("kernel") or NESTED_KERNEL
        machine = value.get("machine")
        host["machine"] = _machine(NESTED_MACHINE.model_dump(mode="json") if machine is None else machine)
    return host


def _steps(value: Any) -> Any:
    if value is None:
        return None
    steps = [PlannedStep.model_validate(step) for step in value]
    return [{step.action: step.load().model_dump(mode="json")} for step in steps]


def _as_it_is(value: Any) -> Any:
    return value


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "guest": _as_it_is,
    "machine": _machine,
    "setup": _setup,
    "kernel_args": lambda value: value or "",
    "start": _as_it_is,
    "host": _host,
    "steps": _steps,
}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """`a.b` and the value as it stands in a plan; a step has its number."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for number, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{name}.{number}" if name else f"step {number}")
    else:
        yield name, json.dumps(value)[:80]


def _names(run: RunFigures) -> str:
    return ", ".join(arm.name for arm in run.arms) or "none"
