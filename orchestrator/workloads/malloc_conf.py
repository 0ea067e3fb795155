"""Settings of jemalloc, as its environment variable MALLOC_CONF takes them (jemalloc(3), TUNING)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Field, StrictBool, StrictInt

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:|-]{1,256}$")]

MallocConf: TypeAlias = dict[_Name, StrictBool | StrictInt | _Word]
"""Such as {dirty_decay_ms: 0, retain: false, thp: never}."""


def malloc_conf_text(settings: Mapping[str, bool | int | str]) -> str:
    """The value of MALLOC_CONF. A setting that jemalloc does not know ends the process (abort_conf)."""
    pairs = {"abort_conf": True, **settings}
    return ",".join(
        f"{name}:{str(value).lower() if isinstance(value, bool) else value}" for name, value in pairs.items()
    )
