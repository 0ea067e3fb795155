"""From a scenario file to a `Scenario`, or to every fault in it.

Each arm is checked as if it were a file of its own: the scenario with that arm's keys written over
it. Every value remembers where it was written, so a fault stands where the user has to change
something, be it in the arm or in the scenario.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.errors import BadInputError, FileProblemsError, Problem
from orchestrator.headline import is_timed
from orchestrator.host.kvm_host import KVM_HOST, NESTED_KERNEL
from orchestrator.host.machine import Machine
from orchestrator.host_kinds import LOCAL, is_guest, takes_our_memory
from orchestrator.registry import Registry
from orchestrator.scenario.checks import (
    clock_faults,
    kernel_file_fault,
    label_faults,
    machine_problems,
    unfit,
    workload_faults,
)
from orchestrator.scenario.matrix import expanded, merged
from orchestrator.scenario.model import (
    IN,
    Arm,
    ArmsText,
    Body,
    Scenario,
    ScenarioText,
    Step,
    StepText,
    is_name,
)
from orchestrator.suggestion import suggest
from orchestrator.yamlfile import (
    Entry,
    Location,
    Node,
    YamlFile,
    dotted,
    printable,
    raise_problems,
    read_yaml,
)

# Name of a guest -> names of its kernels, the default first. Raises BadInputError.
KernelsOf: TypeAlias = Callable[[str], Collection[str]]
Actions: TypeAlias = Registry[type[Action]]


def load_scenario(
    path: Path,
    *,
    kernels_of: KernelsOf,
    actions: Actions = ACTIONS,
    workloads: Path | None = None,
    available_bytes: int | None = None,
    to_run: bool = False,
) -> Scenario:
    """Read and check a scenario. Raises FileProblemsError with every fault.

    `workloads` is the folder of those that steps name, `available_bytes` the free memory of this host; what
    is None is not asked for. `to_run`: a kernel that is a file has to be there.
    """
    loader = _Loader(read_yaml(path), kernels_of, actions)
    return loader.load(workloads, available_bytes, to_run=to_run)


def _overlaid(base: Entry | None, over: Node) -> Node:
    """An arm's mapping written over the scenario's; where that is no mapping, it stays as it is."""
    if base is None:
        return over
    return merged(base.node, over) if isinstance(base.node.content, dict) else base.node


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long, or a folder that may not be read
        return False


class _Loader:
    def __init__(self, file: YamlFile, kernels_of: KernelsOf, actions: Actions) -> None:
        self._file, self._matrix_faults = expanded(file)
        self._kernels_of = kernels_of
        self._actions = actions
        self._problems: list[Problem] = [*file.repeated, *self._matrix_faults]
        self._absent: dict[Problem, None] = {}

    def load(self, workloads: Path | None, available_bytes: int | None, *, to_run: bool) -> Scenario:
        views = self._views()
        bodies = {name: self._body(view) for name, view in views.items()}
        steps = self._steps(tuple(views))
        kernels = self._kernels()
        booted = {name: self._kernel(view, "kernel", kernels) for name, view in views.items()}
        host_kernels = {name: self._host_kernel(view) for name, view in views.items()}
        machines = {name: machine for name, view in views.items() if (machine := self._machine(view))}
        for name, machine in machines.items():
            for fault in (*machine_problems(machine), *clock_faults(bodies[name])):
                self._problems.append(views[name].problem(fault.path, fault.wrong, fault.right))
        self._check_steps(steps, machines)
        for fault in (
            *label_faults(steps, views),
            *(workload_faults(steps, workloads) if workloads else ()),
        ):
            self._fault(fault.path, fault.wrong, fault.right)
        if available_bytes is not None and self._takes_our_memory():
            self._check_room(views, machines, available_bytes)
        self._check_expectations(tuple(views))
        if not self._matrix_faults:
            self._check_arms()
        raise_problems([*self._problems, *(self._absent if to_run else ())])
        return Scenario(
            file=self._file,
            views=views,
            body=next(body for body in bodies.values() if body),
            arms=tuple(
                Arm(
                    name=name,
                    kernel=booted[name],
                    kernel_args=body.kernel_args or "",
                    setup=body.setup,
                    machine=body.machine,
                    host_kernel=host_kernels[name],
                    host_setup=body.host_setup,
                    start=body.start,
                )
                for name, body in bodies.items()
                if body
            ),
            steps=tuple(steps.values()),
            absent=tuple(self._absent),
        )

    def _takes_our_memory(self) -> bool:
        """Whether guests take this machine's memory: a nested host is bounded by its own definition."""
        host = self._file.node(("host",))
        return takes_our_memory(LOCAL if host is None else host.content)

    def _check_room(self, views: dict[str, YamlFile], machines: dict[str, Machine], available: int) -> None:
        sound = {name: machine for name, machine in machines.items() if not any(machine_problems(machine))}
        found = unfit(sound, available)
        if found:
            name, fault = found
            self._problems.append(views[name].problem(fault.path, fault.wrong, fault.right))

    def _views(self) -> dict[str, YamlFile]:
        """The file with each arm written into it; without any arm, the file alone."""
        base = {key: entry for key, entry in self._file.root.entries.items() if key != "arms"}
        arms = self._file.node(("arms",))
        if arms is None or not arms.entries:
            return {"": self._view(base)}
        views = {}
        for name, arm in arms.entries.items():
            entries = dict(base)
            for key, entry in arm.node.entries.items():
                if key in ("kernel", "kernel_args", "host_kernel", "start"):
                    entries[key] = entry
                elif key in ("setup", "machine", "host_setup") and isinstance(entry.node.content, dict):
                    entries[key] = replace(entry, node=_overlaid(base.get(key), entry.node))
            views[name] = self._view(entries)
        return views

    def _view(self, entries: dict[str, Entry]) -> YamlFile:
        return YamlFile(self._file.name, replace(self._file.root, content=entries))

    def _body(self, view: YamlFile) -> Body | None:
        try:
            return Body.model_validate(view.data)
        except ValidationError as error:
            self._problems += view.problems(error, ScenarioText)
            return None

    def _check_arms(self) -> None:
        """Names and keys of the arms themselves; what they override is checked in the views."""
        try:
            ArmsText.model_validate(self._file.data)
        except ValidationError as error:
            self._problems += self._file.problems(error, ArmsText)

    def _check_expectations(self, arms: tuple[str, ...]) -> None:
        """What each says of arms and times, also where something else of it is wrong."""
        listed, timeless = self._file.node(("expect",)), self._timeless()
        if arms == ("",) or listed is None or not isinstance(listed.content, tuple):
            return
        for index, node in enumerate(listed.content):
            said = {key: node.entries[key].node.content for key in node.entries}
            for key in ("arm", "versus"):
                name = said.get(key)
                if isinstance(name, str) and name and name not in arms:
                    self._fault(("expect", index, key), f"there is no arm {name!r}", suggest(name, arms))
            metric = said.get("metric")
            if timeless and isinstance(metric, str) and is_timed(metric):
                where, right = timeless
                self._fault(
                    ("expect", index, "metric"),
                    f"{metric} is missing where {where}",
                    f"expect a count or a size, or write {right}",
                )

    def _timeless(self) -> tuple[str, str] | None:
        """Where no time or rate is measured: by which key, and what would be right."""
        for key, value, words, right in (
            ("times", "ignored", "`times` is ignored", "`times: measured`"),
            ("clock", "instructions", "the clock counts instructions", "`clock: time`"),
        ):
            node = self._file.node((key,))
            if node is not None and node.content == value:
                return words, right
        return None

    def _kernels(self) -> Collection[str]:
        """The kernels of the guest; none (and a problem) where there is no usable definition."""
        node = self._file.node(("guest",))
        if node is None or not isinstance(node.content, str) or not is_name(node.content):
            return ()
        try:
            return self._kernels_of(node.content)
        except FileProblemsError as error:
            self._problems += error.problems
        except BadInputError as error:
            self._problems.append(self._file.problem(("guest",), error.brief, error.hint))
        return ()

    def _host_kernel(self, view: YamlFile) -> str:
        """The kernel of a nested host; on any other it is not used."""
        named = view.node(("host_kernel",))
        host = view.node(("host",))
        if named is None or named.content is None or host is None or not is_guest(host.content):
            return NESTED_KERNEL
        try:
            return self._kernel(view, "host_kernel", self._kernels_of(KVM_HOST))
        except BadInputError as error:
            self._problems.append(view.problem(("host_kernel",), error.brief, error.hint))
        return ""

    def _kernel(self, view: YamlFile, key: str, kernels: Collection[str]) -> str:
        node = view.node((key,))
        kernel = node.content if node else None
        if not isinstance(kernel, str):
            return next(iter(kernels), "")
        if "/" in kernel:
            path = (Path(view.name).parent / kernel).absolute()
            if not _is_there(path):
                wrong = f"kernel {kernel!r}: there is no file {str(path)!r}"
                right = "put a bzImage there, or give its path, relative to this file's folder"
                self._absent[view.problem((key,), wrong, right)] = None
            elif fault := kernel_file_fault(kernel, path):
                self._problems.append(view.problem((key,), *fault))
            return str(path)
        if kernels and kernel not in kernels:
            right = f"{suggest(kernel, list(kernels))} A path has a '/', as in ./bzImage"
            self._problems.append(view.problem((key,), f"there is no kernel {kernel!r}", right))
        return kernel

    def _steps(self, arms: tuple[str, ...]) -> dict[int, Step]:
        """The steps without faults, by their index."""
        steps = self._file.node(("steps",))
        if steps is None or not isinstance(steps.content, tuple):
            return {}
        actions = [self._action(i, node) for i, node in enumerate(steps.content)]
        places = [self._arms_of(i, node, arms) for i, node in enumerate(steps.content)]
        self._check_every_arm_has_a_step(arms, places)
        both = enumerate(zip(actions, places, strict=True))
        return {i: Step(*action, place) for i, (action, place) in both if action and place}

    def _action(self, index: int, node: Node) -> tuple[str, Action] | None:
        """The action of a step and its name; None (and a problem) if it has a fault."""
        at: Location = ("steps", index)
        if not isinstance(node.content, dict) or not node.content:
            self._fault(
                at, f"{dotted(at)} is not an action with parameters", "write it as `- unplug: {to: 0B}`"
            )
            return None
        names = [name for name in node.content if name != IN]
        if not names:
            wrong = f"{dotted(at)} has no action, only `{IN}`"
            right = "write the action beside it, as in `unplug: {to: 0B}`"
            self._problems.append(self._file.problem((*at, IN), wrong, right, key=True))
            return None
        if len(names) > 1:
            wrong = f"{dotted(at)} has {len(names)} actions ({', '.join(map(printable, names))})"
            right = (
                "a step has one: indent its parameters below it, begin a new step with `- `, "
                f"or name arms with `{IN}`"
            )
            self._problems.append(self._file.problem((*at, names[1]), wrong, right, key=True))
            return None
        name = names[0]
        if name not in self._actions:
            right = suggest(name, self._actions.names())
            self._problems.append(
                self._file.problem((*at, name), f"there is no action {name!r}", right, key=True)
            )
            return None
        kind = self._actions[name]
        params = node.content[name].node.plain()
        try:
            return name, kind.model_validate({} if params is None else params)
        except ValidationError as error:
            self._problems += self._file.problems(error, kind, (*at, name))
            return None

    def _arms_of(self, index: int, node: Node, arms: tuple[str, ...]) -> tuple[str, ...] | None:
        """The arms that have a step, in the order of the file; None where a fault keeps that open."""
        at: Location = ("steps", index)
        written = node.entries.get(IN)
        if written is None:
            return arms if node.entries else None
        try:
            named = StepText.model_validate({IN: written.node.plain()}).arms
        except ValidationError as error:
            self._problems += self._file.problems(error, StepText, at)
            return None
        if arms == ("",):  # the file has no arms, which is reported; no name would be right
            return None
        sound = True
        for i, name in enumerate(named):
            if name in arms and name not in named[:i]:
                continue
            sound = False
            if name in arms:
                self._fault((*at, IN, i), f"{dotted((*at, IN))} names {name!r} twice", "remove one")
            else:
                self._fault((*at, IN, i), f"there is no arm {name!r}", suggest(name, arms))
        return tuple(arm for arm in arms if arm in named) if sound else None

    def _check_every_arm_has_a_step(
        self, arms: tuple[str, ...], places: list[tuple[str, ...] | None]
    ) -> None:
        some = [place for place in places if place is not None]
        if not some or len(some) < len(places):  # a step that is not understood may be any arm's
            return
        for arm in arms:
            if not any(arm in place for place in some):
                wrong = f"{dotted(('arms', arm))} has no steps: each is `{IN}` other arms"
                right = f"add it to the `{IN}` of a step, or remove the arm"
                self._problems.append(self._file.problem(("arms", arm), wrong, right, key=True))

    def _machine(self, view: YamlFile) -> Machine | None:
        """An arm's machine, also where something else of the arm is wrong."""
        node = view.node(("machine",))
        try:
            return Machine.model_validate(node.plain() if node else None)
        except ValidationError:  # reported with the rest of the body
            return None

    def _check_steps(self, steps: dict[int, Step], machines: dict[str, Machine]) -> None:
        """What the steps ask of the machine of each arm that has them; a fault of some only says of which."""
        sound = {arm: machine for arm, machine in machines.items() if not any(machine_problems(machine))}
        for index, step in steps.items():
            found: dict[FieldProblem, list[str]] = {}
            asked = [arm for arm in step.arms if arm in sound]
            for arm in asked:
                for fault in step.action.problems(sound[arm]):
                    found.setdefault(fault, []).append(arm)
            for fault, arms in found.items():
                path = ("steps", index, step.name, *(fault.field.split(".") if fault.field else ()))
                where = "" if len(arms) == len(asked) else f" (in {', '.join(arms)})"
                self._fault(path, f"{dotted(path)}: {fault.wrong}{where}", fault.right)

    def _fault(self, path: Location, wrong: str, right: str) -> None:
        self._problems.append(self._file.problem(path, wrong, right))
