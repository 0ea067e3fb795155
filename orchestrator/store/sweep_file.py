"""The table of a sweep: one Parquet file, the same to the byte for the same answers (docs/sweep.md).

pandas.read_parquet("sweep.parquet")          # a row for each point, policy and action
pyarrow.parquet.read_schema("sweep.parquet").metadata[b"sweep"]    # JSON: name, question, axes, inputs
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.store.atomic import replace_file

SweepRow: TypeAlias = dict[str, Any]
"""A row of the table, by column: text and numbers, None for null."""

_KEY: Final = b"sweep"
_TEXT: Final = frozenset({"policy", "action", "costs", "trace"})  # also where a column is all null


class SweepFacts(BaseModel):
    """What the table is about. `axes` are columns that were varied, `inputs_sha256` is of what was asked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    name: str
    description: str
    question: Literal["overcommit", "compare"]
    axes: tuple[str, ...]
    inputs_sha256: str


def write_sweep(path: Path, facts: SweepFacts, rows: Sequence[SweepRow]) -> None:
    """Write the rows in their order. Each has all columns; None is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(rows[0])
    types = {name: _type(pa, name, [row[name] for row in rows]) for name in columns}
    origin = pa.field("origin", pa.string(), nullable=False)
    schema = pa.schema(
        [origin, *(pa.field(name, kind) for name, kind in types.items())],
        metadata={_KEY: json.dumps(facts.model_dump(mode="json"), sort_keys=True).encode()},
    )
    table = pa.Table.from_pylist(
        [{"origin": "modelled"} | {name: _as(types[name], row[name]) for name in columns} for row in rows],
        schema=schema,
    )
    replace_file(path, lambda fresh: pq.write_table(table, fresh, compression="zstd"))


def read_sweep(path: Path) -> tuple[SweepFacts, list[SweepRow]]:
    """Read back what `write_sweep` wrote, row by row. Raises BadInputError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        facts = SweepFacts.model_validate_json((table.schema.metadata or {})[_KEY])
    except (OSError, KeyError, pa.ArrowException, ValidationError) as error:
        raise BadInputError(f"{path} is no table of a sweep: {error}") from None
    rows: list[SweepRow] = table.to_pylist()
    return facts, rows


def is_sweep(path: Path) -> bool:
    """Whether a file is one that `write_sweep` wrote."""
    try:
        read_sweep(path)
    except BadInputError:
        return False
    return True


def _type(pa: Any, name: str, values: Sequence[Any]) -> Any:  # pyarrow has no types
    there = [value for value in values if value is not None]
    if name in _TEXT or any(isinstance(value, str) for value in there):
        return pa.string()
    return pa.float64() if any(isinstance(value, float) for value in there) else pa.int64()


def _as(kind: Any, value: Any) -> Any:
    return str(value) if value is not None and str(kind) == "string" else value
