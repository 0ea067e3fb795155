"""What meta.json says of the host of the guests."""

from __future__ import annotations

from orchestrator.host.accel import second_level
from orchestrator.host.cpu import MICROCODE
from orchestrator.host.libvirt_host import LibvirtHost
from orchestrator.host.settings import PATHS, THP, chosen
from orchestrator.procfs import kib_lines, of_first_processor, processors


def host_facts(host: LibvirtHost) -> dict[str, object]:
    """What is known of the host of the guests: its translation, versions, kernel, processor, memory."""
    shell = host.shell
    cpuinfo = shell.text("/proc/cpuinfo")
    # "always [madvise] never"; a kernel without CONFIG_TRANSPARENT_HUGEPAGE has no such file.
    thp = shell.texts(PATHS[THP]).get(PATHS[THP])
    return {
        "second_level": second_level(shell),
        "libvirt_uri": host.uri.partition("?")[0],
        "hypervisor": host.versions,
        "host": {
            "name": shell.name,
            "kernel": shell.text("/proc/sys/kernel/osrelease").strip(),
            "cpu": of_first_processor(cpuinfo, "model name"),
            "microcode": of_first_processor(cpuinfo, MICROCODE),
            "cpus": processors(cpuinfo) or None,
            "memory_bytes": kib_lines(shell.text("/proc/meminfo")).get("MemTotal"),
            "thp": "none" if thp is None else chosen(thp),
        },
    }
