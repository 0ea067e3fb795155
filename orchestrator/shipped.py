"""Where the files lie that come with the program: guests, workloads, playbooks, scenarios, committed results.

In a checkout that is the top of it, and what is not there is nowhere. A wheel carries them in the package
(hatch_build.py); files of the user win over them, one by one: who has a workload of their own has the shipped
ones as well.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

DATA: Final = "data"
"""Their folder in the package, of a wheel only."""

_PACKAGE: Final = Path(str(resources.files("orchestrator")))
_SUFFIX: Final = ".yaml"
_SCENARIOS: Final = "scenarios"


def installed() -> bool:
    """Whether this is a wheel that was installed, and no checkout."""
    return (_PACKAGE / DATA).is_dir()


def shipped(*place: str) -> Path:
    """What is shipped there, such as `guests`; it need not exist."""
    root = _PACKAGE / DATA if installed() else _PACKAGE.parent
    return root.joinpath(*place)


def own_or_shipped(own: Path, kind: str) -> Path:
    """`own`; where that is not there, what an installed program has of that name in its folder `kind`.

    Where neither is there, `own`: what is missing is said of that one.
    """
    ours = shipped(kind, own.name)
    return ours if installed() and not own.exists() and ours.exists() else own


def own_and_shipped(folder: Path, kind: str) -> tuple[Path, ...]:
    """The folders in which `own_or_shipped` finds what is in `folder`."""
    return (folder, shipped(kind)) if installed() else (folder,)


def scenario_file(written: Path) -> Path:
    """The scenario that is meant by a path, or by a name such as `quickstart`.

    That is the file itself, or ./NAME.yaml, ./scenarios/NAME.yaml, or the shipped one. Where none of them is
    there, what was written.
    """
    if written.is_absolute() or not written.parts or ".." in written.parts or _is_file(written):
        return written
    files = [written] if written.suffix == _SUFFIX else [written.with_name(f"{written.name}{_SUFFIX}")]
    if files[0].parts[0] != _SCENARIOS:
        files.append(_SCENARIOS / files[0])
    found = (path for path in (*files, *(shipped(str(file)) for file in files)) if _is_file(path))
    return next(found, written)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a NUL in it: whoever opens the file says so
        return False


def is_shipped(scenario: Path) -> bool:
    """Whether a scenario came with an installed program: beside it there is nothing of the user's."""
    return installed() and scenario.absolute().is_relative_to(shipped())


def scenario_names(root: Path | None = None) -> list[str]:
    """Names, as `scenario_file` takes them, of those in root/scenarios, or of the shipped ones."""
    folder = shipped(_SCENARIOS) if root is None else root / _SCENARIOS
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob(f"*{_SUFFIX}"))
