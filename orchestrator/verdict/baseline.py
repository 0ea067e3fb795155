"""A baseline file: the figures of a run, kept to hold later runs against."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.store.atomic import replace_text
from orchestrator.verdict.figures import RunFigures

FORMAT: Final = 1
_MAX_BYTES: Final = 64 << 20


def write_baseline(path: Path, figures: RunFigures) -> None:
    """Write the figures of a run as a baseline. Raises BadInputError when none of its trials counts."""
    if not any(arm.trials for arm in figures.arms):
        raise BadInputError(
            f"{figures.run} has no trial that counts",
            hint=f"orchestrator show {figures.run}   says why",
        )
    text = _Adapter.dump_json(figures, indent=1).decode()
    replace_text(path, f'{{"baseline": {FORMAT}, "figures": {text}}}\n')


def read_baseline(path: Path) -> RunFigures:
    """Read a baseline back. Raises BadInputError for what is none, or is of another version."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInputError(f"{path} is too large to be a baseline")
        document: Any = _Document.validate_json(path.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror or error}", hint=f"orchestrator baseline RUN --output {path}"
        ) from error
    except ValidationError as error:
        raise BadInputError(
            f"{path} is no baseline, or is damaged",
            details=str(error)[:1000],
            hint=f"orchestrator baseline RUN --output {path}",
        ) from None
    version = document.get("baseline")
    if version != FORMAT:
        raise BadInputError(
            f"{path} is a baseline of format {version}; this program reads {FORMAT}",
            hint="make it again, of a run that this version can show",
        )
    try:
        return _Adapter.validate_python(document.get("figures"))
    except ValidationError as error:
        raise BadInputError(f"{path} is damaged", details=str(error)[:1000]) from None


_Adapter: Final[TypeAdapter[RunFigures]] = TypeAdapter(RunFigures)
_Document: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(dict[str, Any])
