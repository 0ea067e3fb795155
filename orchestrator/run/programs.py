"""What the steps of a run need in its guests: workloads, and the programs to be installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.guest.programs import build_program
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import PlannedStep
from orchestrator.shipped import own_or_shipped
from orchestrator.workloads import WorkloadDriver, load_workload


def planned_workloads(steps: Iterable[PlannedStep], places: ProjectPaths) -> dict[str, WorkloadDriver]:
    """The workloads that steps name, with their settings. Raises BadInputError for a bad one."""
    found: dict[str, WorkloadDriver] = {}
    for step in steps:
        name = step.params.get("workload")
        if isinstance(name, str):
            settings = step.params.get("set")
            driver = load_workload(places.workloads / name, settings if isinstance(settings, dict) else None)
            found.setdefault(name, driver)
    return found


def guest_programs(workloads: Mapping[str, WorkloadDriver], places: ProjectPaths) -> dict[str, Path]:
    """What is to be installed in a guest, compiled where it is C: name -> program. Compiles nothing twice."""
    folder = places.programs
    programs = {source.stem: build_program(source, places.cache) for source in sorted(folder.glob("*.c"))}
    programs |= {script.stem: script for script in sorted(folder.glob("*.sh"))}
    for name, driver in workloads.items():
        if driver.program:
            source = own_or_shipped(places.workloads / name, "workloads") / driver.program
            compiled = source.suffix == ".c"
            programs[source.stem] = (
                build_program(source, places.cache, driver.linkage) if compiled else source
            )
    return programs
