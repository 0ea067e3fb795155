"""OOM kills in the memory cgroup that QEMU runs in, as its limit or the host brings them about."""

import glob
from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import MemoryCgroup, counters, memory_cgroup
from orchestrator.series import Headline, Series


@PROBES.register("host_cgroup")
class HostCgroup(Probe):
    """`oom_kill` of the cgroup's own file: memory.events, and on v1 memory.oom_control
    (mem_cgroup_oom_control_read(), mm/memcontrol-v1.c). That of v2 has those of cgroups below as well."""

    outlives_guest: ClassVar = True
    series: ClassVar = (
        Series(
            "oom_kill",
            "count",
            "processes of QEMU's memory cgroup that an OOM killer ended: memory.events, on cgroup v1 "
            "memory.oom_control",
            headlines=(Headline("host_cgroup_oom_kills", "growth", "lower", 1, worst=True),),
        ),
    )

    def __init__(self) -> None:
        self._cgroup: MemoryCgroup | None = None  # of a QEMU that has ended: where it was

    def from_host(self, host: HostView) -> Iterator[Reading]:
        own = f"/proc/{host.domain.qemu.pid}/cgroup"
        if text := host.shell.texts(own).get(own):
            self._cgroup = memory_cgroup(text)
        if self._cgroup is None or not self._cgroup.path:
            yield Reading("oom_kill", None, gap="QEMU's memory cgroup is not to be seen from here")
            return
        path = self._cgroup.events
        # A name of a cgroup may have what a pattern takes for a sign of its own.
        kills = counters(host.shell.texts(glob.escape(path)).get(path, "")).get("oom_kill")
        gap = "" if kills is not None else f"no count of OOM kills in {path}: the root cgroup has none"
        yield Reading("oom_kill", kills, gap=gap)
