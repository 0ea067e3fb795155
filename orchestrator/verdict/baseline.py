"""A baseline file: the figures of a run, kept to hold later runs against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.records.versions import SCHEMA_VERSION, is_readable
from orchestrator.store.atomic import replace_text
from orchestrator.verdict.figures import RunFigures

FORMAT: Final = 1
_MAX_BYTES: Final = 64 << 20


class _File(BaseModel):
    """`figures.schema_version` is that of the run's folder."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    baseline: Literal[1]
    figures: RunFigures


def write_baseline(path: Path, figures: RunFigures) -> None:
    """Write the figures of a run as a baseline, or put it in the place of another; never in that of any
    other file. Raises BadInputError for that, and when none of the run's trials counts."""
    if not any(arm.trials for arm in figures.arms):
        raise BadInputError(
            f"{figures.run} has no trial that counts",
            hint=f"orchestrator show {figures.run}   says why",
        )
    if not path.parent.is_dir():
        raise BadInputError(f"there is no folder {path.parent} to write {path.name} into")
    if path.exists() and _format(path) is None:
        raise BadInputError(
            f"{path} is there and is no baseline: it is not written over",
            hint="give another name, or remove it first",
        )
    # What it does not have, it asks of no other run: the reasons are of no use there.
    arms = tuple(replace(arm, gaps={}) for arm in figures.arms)
    file = _File(baseline=FORMAT, figures=replace(figures, arms=arms))
    replace_text(path, file.model_dump_json(indent=1) + "\n")


def read_baseline(path: Path) -> RunFigures:
    """Read a baseline back. Raises BadInputError for what is none, or is of another version."""
    again = f"orchestrator baseline RUN --output {path}"
    try:
        version = _format(path)
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}", hint=again) from error
    if version is None:
        raise BadInputError(f"{path} is no baseline, or is damaged", hint=again)
    if version != FORMAT:
        raise BadInputError(
            f"{path} is a baseline of format {version}; this program reads {FORMAT}",
            hint="make it again, of a run that this version can show",
        )
    try:
        figures = _File.model_validate_json(raw).figures
    except ValidationError as error:
        raise BadInputError(f"{path} is damaged", details=str(error)[:1000], hint=again) from None
    # A run of such a version is read as one of this version, and so is what was made of it.
    same = is_readable(figures.schema_version)
    return replace(figures, schema_version=SCHEMA_VERSION) if same else figures


def _format(path: Path) -> object:
    """What a file says of its format; None where it is no baseline of any."""
    if path.stat().st_size > _MAX_BYTES:
        return None
    try:
        document = pydantic_core.from_json(path.read_bytes())  # deep nesting is a ValueError here, too
    except ValueError:
        return None
    return document.get("baseline") if isinstance(document, dict) else None
