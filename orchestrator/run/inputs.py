"""The files of the project that a plan's trials read, by content: one that is another is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.errors import BadInputError
from orchestrator.host.kvm_host import KVM_HOST
from orchestrator.host_kinds import is_guest
from orchestrator.launch.paths import PLAYBOOK, ProjectPaths
from orchestrator.plan import Plan
from orchestrator.shipped import own_or_shipped

_COMMON = "common"  # of workloads: headers that several include
_NOT_THERE = "not there"


def input_hashes(plan: Plan, places: ProjectPaths) -> dict[str, str]:
    """SHA-256 of each file that trials of the plan read here, by its place (`workloads/redis/workload.yaml`).

    These are guest definitions, what is installed in guests, the playbook, the workloads that steps name, and
    kernels that are files, by their paths. Raises BadInputError where one cannot be read.
    """
    return {name: _sha256(path) for name, path in sorted(_files(plan, places))}


def with_inputs(plan: Plan, places: ProjectPaths) -> Plan:
    """The plan with the hashes of what lies here, unless it has them already."""
    return plan if plan.files else plan.model_copy(update={"files": input_hashes(plan, places)})


def must_have_inputs(plan: Plan, places: ProjectPaths) -> None:
    """Raise BadInputError, with both hashes, for each file that is not as the plan has it.

    A plan without hashes is one of an older version, of which nothing can be said.
    """
    if not plan.files:
        return
    here = input_hashes(plan, places)
    if here != plan.files:
        raise BadInputError(
            "files of the project are not those that the plan was made with",
            details="\n".join(_differences(plan.files, here)),
            hint=f"bring {places.guests.parent} to where the plan was made, or plan the scenario again",
        )


def _differences(planned: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*planned, *here}):
        then, now = planned.get(name, _NOT_THERE), here.get(name, _NOT_THERE)
        if then != now:
            yield f"{name}: {then} in the plan, {now} here"


def _files(plan: Plan, places: ProjectPaths) -> Iterator[tuple[str, Path]]:
    definitions = [plan.guest, *([KVM_HOST] if is_guest(plan.host) else [])]
    for name in dict.fromkeys(definitions):
        yield f"guests/{name}.yaml", own_or_shipped(places.guests / f"{name}.yaml", "guests")
    yield from _folder("guests/programs", places.programs)
    yield f"playbooks/{PLAYBOOK}", places.playbook
    named = {step.params.get("workload") for trial in plan.trials for step in trial.steps}
    workloads = sorted(name for name in named if isinstance(name, str))
    for name in [*workloads, *([_COMMON] if workloads else [])]:
        yield from _folder(f"workloads/{name}", own_or_shipped(places.workloads / name, "workloads"))
    kernels = {kernel for arm in plan.arms for kernel in (arm.kernel, arm.host_kernel) if "/" in kernel}
    yield from ((kernel, Path(kernel).expanduser()) for kernel in kernels)


def _folder(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.glob("*"):
        if path.is_file() and not path.name.startswith("."):
            yield f"{name}/{path.name}", path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}", hint="the plan needs it") from None
