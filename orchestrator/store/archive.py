"""Files of arrays, `.npz` as plain numpy reads them: a schema version, meta data as JSON, flat arrays.

They come from other machines, and may be anything: nothing in them is unpickled, and no more is read than a
file of its kind may have.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.store.atomic import replace_file
from orchestrator.units import GIB, format_size

MAX_BYTES: Final = 4 * GIB  # uncompressed: the flags of a guest of 2 TiB, or 400 million entries

_SCHEMA_DTYPE: Final = np.dtype("<i8")
_META_DTYPE: Final = np.dtype("u1")
# numpy.lib.format 1.0: magic, version, length of the header, the header with its fields in sorted order.
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<descr>[^']{1,8})', 'fortran_order': False, "
    rb"'shape': \((?P<length>\d{1,15}),\), \} *\n",
    re.DOTALL,
)

Meta = TypeVar("Meta", bound=BaseModel)
Content = TypeVar("Content")


@dataclass(frozen=True)
class Archive(Generic[Meta]):
    """An open file: its schema version, its meta data, and its arrays on demand."""

    kind: ArchiveKind[Meta]
    path: Path
    members: zipfile.ZipFile
    schema: int
    meta: Meta

    def array(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A flat array of exactly `dtype`; read-only. Raises BadInputError."""
        return _array(self.kind, self.path, self.members, name, dtype)

    def must_be_whole(self, faults: list[str]) -> None:
        """Raise BadInputError where what was made of the arrays contradicts itself."""
        if faults:
            raise BadInputError(
                f"{self.path}: damaged: {faults[0]}", details="\n".join(faults), hint=self.kind.hint
            )


@dataclass(frozen=True)
class ArchiveKind(Generic[Meta]):
    """What a file is, how it says so, and what to do about one that is damaged (`hint`).

    `schema_name` is the array that has the version: the last of `reads` is written, all of them are read.
    """

    noun: str  # "a snapshot"
    schema_name: str
    reads: tuple[int, ...]
    meta: type[Meta]
    hint: str

    def write(self, path: Path, meta: Meta, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put them into the file `path`, whole or not at all. Raises OSError when it cannot be written."""
        written: dict[str, NDArray[Any]] = {
            **arrays,
            self.schema_name: np.array([self.reads[-1]], dtype=_SCHEMA_DTYPE),
            "meta": np.frombuffer(meta.model_dump_json().encode(), dtype=_META_DTYPE),
        }

        def write(fresh: Path) -> None:
            with fresh.open("wb") as file:  # a file object: savez appends .npz to a name that lacks it
                np.savez_compressed(file, allow_pickle=False, **written)

        replace_file(path, write)

    def is_one(self, path: Path) -> bool:
        """Whether the file is of this kind, of whatever version."""
        try:
            with zipfile.ZipFile(path) as members:
                return f"{self.schema_name}.npy" in members.namelist()
        except (OSError, zipfile.BadZipFile):
            return False

    def read(self, path: Path, content: Callable[[Archive[Meta]], Content]) -> Content:
        """What `content` makes of the file.

        Raises BadInputError when there is no such file, or it is truncated, damaged, of another version or
        of another kind. Reads no more than MAX_BYTES.
        """
        try:
            with zipfile.ZipFile(path) as members:
                return content(self._opened(path, members))
        except OSError as error:
            raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            # NotImplementedError and RuntimeError: zipfile's words for compressions and encryption it lacks.
            raise BadInputError(f"{path}: not {self.noun}, or damaged: {error}", hint=self.hint) from error

    def _opened(self, path: Path, members: zipfile.ZipFile) -> Archive[Meta]:
        size = sum(member.file_size for member in members.infolist())
        if size > MAX_BYTES:
            raise BadInputError(
                f"{path}: holds {format_size(size)}, more than {self.noun} may ({format_size(MAX_BYTES)})"
            )
        if f"{self.schema_name}.npy" not in members.namelist():
            raise BadInputError(f"{path}: not {self.noun}: it says no schema version", hint=self.hint)
        schema = _array(self, path, members, self.schema_name, _SCHEMA_DTYPE)
        if len(schema) != 1 or schema[0] not in self.reads:
            first, last = self.reads[0], self.reads[-1]
            raise BadInputError(
                f"{path}: {self.noun} of schema {schema.tolist()}, this program reads "
                f"{first if first == last else f'{first} to {last}'}",
                hint="read it with the version of the program that wrote it",
            )
        try:
            text = _array(self, path, members, "meta", _META_DTYPE).tobytes()
            meta = self.meta.model_validate_json(text)
        except ValidationError as error:
            raise BadInputError(
                f"{path}: its meta data are damaged", details=str(error), hint=self.hint
            ) from error
        return Archive(self, path, members, int(schema[0]), meta)


def _array(
    kind: ArchiveKind[Any], path: Path, members: zipfile.ZipFile, name: str, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """One member.

    numpy's own reader allocates whatever a header asks for and lets errors of Python's tokenizer through
    when a header is damaged. The one header that numpy writes for such an array is all that is taken here.
    """
    try:
        data = members.read(f"{name}.npy")
    except KeyError:
        raise BadInputError(f"{path}: not {kind.noun}: it has no {name}") from None
    header = _HEADER.match(data)
    if header is None or header["descr"] != dtype.str.encode():
        raise BadInputError(f"{path}: {name} is not a flat array of {dtype}", hint=kind.hint)
    if int(header["length"]) * dtype.itemsize != len(data) - header.end():
        raise BadInputError(f"{path}: {name} is cut short, or has a false header", hint=kind.hint)
    return np.frombuffer(data, dtype=dtype, offset=header.end())
