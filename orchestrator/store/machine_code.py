"""What numba compiled, in files: compiling takes a second or two for each policy, most replays take less.

numba's own cache (`cache=True`) does not do. It looks at the file of the function alone, not at what is
compiled into it from others; a function that is an argument is another one in each process, so that none is
found again; and its index has no lock, so that of two processes that compile at once one may leave its code
under the types of the other. Here a file is named by all that its code is made from, is put there whole, and
is never changed.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import sigutils
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.typing import signature

from orchestrator.store.atomic import replace_file

_DIGEST_BYTES: Final = 32
_OTHERS_MAY_WRITE: Final = 0o022
_PLAIN: Final = (bool, int, float, str, type(None))
_PLAIN_TYPES: Final = (types.Array, types.Number, types.Boolean, types.NoneType)
_LIBRARIES: Final = {"math", "numpy"}  # modules whose functions change with a version that _compiler names


def keep_code(folder: Path) -> None:
    """Look for the code of the model's compiled functions in `folder`, and put it there, from now on.

    It is code for this machine, which is run: files that others may write to are not read.
    """
    from orchestrator.model import guest_tables, pressure, replay, tlb_walk  # noqa: F401  # they compile
    from orchestrator.model.jit import COMPILED
    from orchestrator.model.policies import POLICIES

    POLICIES.names()  # so do some policies
    for function in COMPILED:
        function._cache = KeptCode(function, folder)  # noqa: SLF001  # where numba's own is, with cache=True


class NoNameError(Exception):
    """What nothing says of what it is in another process."""


class KeptCode(NullCache):  # type: ignore[misc]  # numba ships no types
    """The code of one function, for each combination of types that it was compiled for."""

    def __init__(self, function: Any, folder: Path) -> None:
        self._function = function
        self._folder = folder

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for these types, or None where there is none."""
        target_context.refresh()
        args, _ = sigutils.normalize_signature(sig)
        path = self._path(args, target_context.codegen())
        content = _read(path) if path else None
        if content is None:
            return None
        library, described, environment, returned, environments = pickle.loads(content)  # noqa: S301  # see _read
        described.argtypes = args
        parts = (library, described, environment, signature(returned, *args))
        # Neither of object mode, nor with loops lifted out, nor annotated, nor with anything to do first.
        return CompileResult._rebuild(target_context, *parts, *(False, (), "", ()), environments)  # noqa: SLF001  # as numba's own does

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ARG002  # numba calls it so
        """Keep the code for these types. Where the folder cannot be written to, each process compiles."""
        path = self._path(data.signature.args, data.codegen)
        unusual = data.objectmode or data.lifted or data.reload_init or data.library.has_dynamic_globals
        if path is None or unusual:
            return
        library, described, environment, signed, *_, environments = data._reduce()  # noqa: SLF001  # as above
        described = copy(described)
        described.argtypes = ()  # those that are functions are this process's own
        content = pickle.dumps((library, described, environment, signed.return_type, environments))
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, lambda fresh: _write(fresh, content))

    def _path(self, args: tuple[Any, ...], codegen: Any) -> Path | None:
        try:
            made_from = [*_compiler(codegen), *_function(self._function, set())]
            for one in args:
                made_from += _type(one)
        except NoNameError:
            return None
        digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
        return self._folder / f"{self._function.py_func.__name__.strip('_')}-{digest}"


def _compiler(codegen: Any) -> Iterator[str]:
    """What compiles, for which CPU, and what tells it to do otherwise."""
    yield f"{sys.version} {numba.__version__} {llvmlite.__version__} {np.__version__}"
    yield repr(codegen.magic_tuple())
    yield from sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_"))


def _type(one: Any) -> Iterator[str]:
    """The type of an argument. That of a function is what the function does."""
    if isinstance(one, types.Dispatcher):
        yield from _function(one.dispatcher, set())
    elif isinstance(one, types.BaseTuple):
        yield f"{type(one).__name__} of {len(one)}"
        for part in one:
            yield from _type(part)
    elif isinstance(one, _PLAIN_TYPES):
        yield str(one)
    else:
        raise NoNameError(f"an argument of type {one}")


def _function(dispatcher: Any, seen: set[FunctionType]) -> Iterator[str]:
    """What a function does: its bytecode, and all that it takes from elsewhere."""
    function = dispatcher.py_func
    yield f"{function.__module__}.{function.__qualname__} {sorted(dispatcher.targetoptions.items())}"
    if function in seen:
        return
    seen.add(function)
    code = function.__code__
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars}"
    for value in (*code.co_consts, *(function.__defaults__ or ())):
        yield from _value(value, seen)
    for cell in function.__closure__ or ():
        yield from _value(cell.cell_contents, seen)
    for name in code.co_names:
        if name in function.__globals__:
            yield from _value(function.__globals__[name], seen)


def _value(value: Any, seen: set[FunctionType]) -> Iterator[str]:
    """A constant of a function, or a global that it reads."""
    if isinstance(value, Dispatcher):
        yield from _function(value, seen)
    elif isinstance(value, tuple):
        yield f"tuple of {len(value)}"
        for part in value:
            yield from _value(part, seen)
    elif type(value) in _PLAIN or (isinstance(value, ModuleType) and value.__name__ in _LIBRARIES):
        yield repr(value) if type(value) in _PLAIN else value.__name__
    else:
        raise NoNameError(f"{value!r}, which a compiled function reads")


def _read(path: Path) -> bytes | None:
    """What `_write` wrote; None where it is damaged, or may be of somebody whose code we must not run."""
    try:
        with path.open("rb") as file:
            status, content = os.fstat(file.fileno()), file.read()
    except OSError:
        return None
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(hashlib.sha256(content).digest() + content)
