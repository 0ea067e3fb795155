"""Observations as Arrow: their schema, and a stream of them whose tail may be torn off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BadInputError
from orchestrator.observation import Observation
from orchestrator.store.layout import OBSERVATIONS, STREAM

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("t_ns", "trial", "source", "name", "value", "unit", "origin", "gap")


def schema() -> Any:  # pyarrow.Schema; pyarrow has no types
    """One column per field of `Observation`; `value` is null where `gap` says why."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in COLUMNS]
    fields[0] = pa.field("t_ns", pa.int64(), nullable=False)
    fields[4] = pa.field("value", pa.float64(), nullable=True)
    return pa.schema(fields)


def record_batch(observations: Sequence[Observation]) -> Any:  # pyarrow.RecordBatch
    """Observations as one Arrow record batch of `schema()`."""
    import pyarrow as pa

    rows = [_finite(row) for row in observations]
    columns = [[_plain(getattr(row, name)) for row in rows] for name in COLUMNS]
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, schema(), strict=True)],
        schema=schema(),
    )


def read_stream_prefix(path: Path) -> Any:  # pyarrow.Table
    """All whole record batches at the head of the Arrow IPC stream `path`, which may end anywhere."""
    import pyarrow as pa

    data = path.read_bytes()
    batches = []
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
            if stream.schema.equals(schema()):
                for batch in stream:
                    batch.validate(full=True)
                    batches.append(batch)
    except (pa.ArrowException, OSError, EOFError):
        pass  # the torn end; what came before it is whole
    return pa.Table.from_batches(batches, schema=schema())


def write_parquet(table: Any, path: Path) -> None:
    """`table` as Parquet, with a checksum of each page; small, since the text columns repeat themselves."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_observations(trial_directory: Path) -> pd.DataFrame:
    """Observations of a trial, in the order in which they were written.

    Columns: t_ns int64; value float64 with NaN where `gap` says why; text in the others. A trial
    that is still running, or was killed, gives the readable head of what it had written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for _ in range(2):  # the stream turns into the Parquet file between two looks at most once
        path = trial_directory / OBSERVATIONS
        try:
            # In this thread: where the machine gives no more, pyarrow's own readers wait for ever or call
            # the file damaged.
            with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
                return _frame(file.read(use_threads=False).select(COLUMNS).cast(schema()))
        except FileNotFoundError:
            pass
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the kernel's; without a number it is pyarrow's word for what it cannot read
            raise BadInputError(f"{path}: damaged: {error}", hint="fetch it again if it was copied") from None
        try:
            return _frame(read_stream_prefix(trial_directory / STREAM))
        except FileNotFoundError:
            pass
    return _frame(schema().empty_table())


def _frame(table: Any) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(use_threads=False)
    return frame


def _finite(row: Observation) -> Observation:
    # NaN is how a null reads back, so that a reading of NaN would be one without a reason.
    if row.value is None or math.isfinite(row.value):
        return row
    return replace(row, value=None, gap=f"the reading was {row.value}")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value  # StrEnum to str
