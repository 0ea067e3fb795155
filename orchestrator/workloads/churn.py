"""Objects allocated and mostly freed again, under an allocator of choice: what it keeps mapped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, model_validator

from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.holder import Holder
from orchestrator.workloads.malloc_conf import MallocConf, malloc_conf_text

# Names that ld.so looks up in the guest's library folders.
_LIBRARIES = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4"}

VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
VariableText = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00\n]*$")]


@DRIVERS.register("churn")
class Churn(Holder):
    """A holder whose allocator is preloaded; its trial's seed decides what is freed."""

    allocator: Literal["glibc", "jemalloc", "tcmalloc"] = "glibc"
    malloc_conf: Annotated[MallocConf, Field(default_factory=dict)]
    environment: Annotated[dict[VariableName, StrictInt | VariableText], Field(default_factory=dict)]
    """What else allocators read, such as TCMALLOC_RELEASE_RATE."""

    @model_validator(mode="after")
    def _settings_that_are_read(self) -> Churn:
        if self.malloc_conf and self.allocator != "jemalloc":
            raise ValueError("malloc_conf is read by jemalloc only")
        for name in sorted(self.environment.keys() & {"LD_PRELOAD", "MALLOC_CONF"}):
            raise ValueError(f"{name} follows from allocator and malloc_conf")
        if self.linkage != "dynamic":
            raise ValueError("an allocator can be preloaded only where linkage is dynamic")
        return self

    def words(self, seed: int) -> list[str]:
        return [*super().words(seed), f"seed={seed % 2**31}", f"allocator={self.allocator}"]

    def variables(self) -> dict[str, str]:
        named = {name: str(value) for name, value in self.environment.items()}
        if self.allocator in _LIBRARIES:
            named["LD_PRELOAD"] = _LIBRARIES[self.allocator]
        if self.malloc_conf:
            named["MALLOC_CONF"] = malloc_conf_text(self.malloc_conf)
        return named
