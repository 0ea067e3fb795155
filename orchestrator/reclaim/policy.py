"""The file of `reclaim --policy`: which lever, on which VMs, and when."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from orchestrator.errors import BadInputError
from orchestrator.host.machine import Frozen
from orchestrator.levers import LEVERS, Lever
from orchestrator.levers.collapse import Collapse
from orchestrator.units import Duration, Size
from orchestrator.yamlfile import raise_problems, read_yaml

ALL = "all"
_MOST_PATTERNS = 1000

Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


def _known(name: str) -> str:
    try:
        LEVERS[name]
    except BadInputError as error:
        raise ValueError(f"{error.brief}; {error.hint}") from None
    return name


def _patterns(value: object) -> object:
    return ("*",) if value == ALL else value


class ReclaimPolicy(Frozen):
    """The whole file. A VM is due when one of the thresholds is passed that are given."""

    version: Literal[1]
    lever: Annotated[str, AfterValidator(_known)]
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Those of the lever, as a step of a scenario has them."""
    domains: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        BeforeValidator(_patterns),
        Field(min_length=1, max_length=_MOST_PATTERNS),
    ]
    """Names of VMs, with `*`, `?` and `[...]` as in glob(7); or `all`."""
    reclaimable_at_least: Annotated[Size, Field(gt=0)] | None = None
    """Bytes of a VM's second-level tables that the lever would free, in the end (`Lever.reclaimable`)."""
    psi_some_avg10_at_least: Percent | None = Field(default=None, validate_default=True)
    """In percent: in so much of the last 10 s tasks of the host were stalled for memory."""
    pause: Annotated[Duration, Field(gt=0)]
    """The least time from the end of an attempt to the next one, on the same VM; on the same host for a lever
    that acts on all VMs of it."""
    settle: Duration = 15.0
    """How long to wait before what is held is measured again: faults make tables anew meanwhile."""
    journal: Path
    """The file to which a line of JSON is added for each attempt."""

    # Of a field, not of the whole: it is reported with what is wrong elsewhere.
    @field_validator("psi_some_avg10_at_least")
    @classmethod
    def _a_threshold(cls, percent: float | None, info: ValidationInfo) -> float | None:
        if percent is None and info.data.get("reclaimable_at_least", 0) is None:
            raise ValueError("no threshold; give `reclaimable_at_least`, `psi_some_avg10_at_least` or both")
        return percent

    @field_validator("journal")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("a service has no folder of its own; write an absolute path")
        return path

    def covers(self, name: str) -> bool:
        """Whether a VM of that name is meant."""
        return any(fnmatchcase(name, pattern) for pattern in self.domains)


def load_policy(path: Path) -> tuple[ReclaimPolicy, Lever]:
    """Read the file, and its lever with its parameters. Raises FileProblemsError with every fault."""
    file = read_yaml(path)
    problems = list(file.repeated)
    policy: ReclaimPolicy | None = None
    lever: Lever | None = None
    try:
        policy = ReclaimPolicy.model_validate(file.data)
    except ValidationError as error:
        problems += file.problems(error, ReclaimPolicy)
    name, given = file.node(("lever",)), file.node(("parameters",))
    if name is not None and isinstance(name.content, str) and name.content in LEVERS:
        kind = LEVERS[name.content]
        try:
            lever = kind.model_validate(given.plain() if given and isinstance(given.content, dict) else {})
        except ValidationError as error:
            problems += file.problems(error, kind, ("parameters",))
    if policy and isinstance(lever, Collapse) and (policy.psi_some_avg10_at_least or 0) > lever.most_stalled:
        wrong = f"{policy.lever} refuses where more than {lever.most_stalled:g} % are stalled (most_stalled)"
        problems.append(file.problem(("psi_some_avg10_at_least",), wrong, "give less, or set most_stalled"))
    raise_problems(problems)
    assert policy is not None  # noqa: S101  # else there was a problem
    assert lever is not None  # noqa: S101  # as above
    return policy, lever
