"""Whether what a fleet needs is installed: it is an extra, which nothing else needs."""

from __future__ import annotations

from importlib.util import find_spec

from orchestrator.errors import BadInputError


def must_be_installed() -> None:
    """Raise BadInputError where Dask Distributed is not."""
    if find_spec("distributed") is None:
        raise BadInputError(
            "a fleet takes Dask Distributed, which is not installed",
            hint="pip install 'orchestrator[fleet]'; in a clone: ./bootstrap orchestrator fleet --help",
        )
