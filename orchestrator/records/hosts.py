"""What identifies a host: in meta.json of a run whose trials are of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from orchestrator.records.base import Number, OptionalNumber, Record, Text
from orchestrator.units import format_size

# What a reader calls it. All but the first may make a difference between hosts, and is named where it does.
WORDS: Final[Mapping[str, str]] = {
    "hostname": "hostname",
    "cpu": "CPU",
    "microcode": "microcode",
    "cpus": "CPUs",
    "memory_bytes": "memory",
    "kernel": "kernel",
    "thp": "transparent huge pages",
    "qemu": "QEMU",
    "libvirt": "libvirt",
}


class HostRecord(Record):
    """A host. What is not known of it is empty; what was not the same in all its trials is `A and B`."""

    hostname: Text = ""
    cpu: Text = ""
    microcode: Text = ""
    cpus: OptionalNumber = None
    memory_bytes: OptionalNumber = None
    kernel: Text = ""
    thp: Text = ""
    qemu: Text = ""
    libvirt: Text = ""

    @classmethod
    def of(cls, hostname: str, facts: Mapping[str, Any]) -> Self:
        """Of the facts that meta.json of a run, or unit.json of a trial, has of its host."""
        known = {**_part(facts, "hypervisor"), **_part(facts, "host"), "hostname": hostname}
        return cls.model_validate({key: known[key] for key in WORDS if known.get(key) is not None})

    @classmethod
    def joined(cls, records: Iterable[Self]) -> Self:
        """The same host at several times."""
        all_of_them = list(records)
        found: dict[str, str | Number] = {}
        for key in WORDS:
            values = list(dict.fromkeys(value for one in all_of_them if (value := getattr(one, key))))
            if values:
                # Of a number that changed, the last.
                texts = all(isinstance(value, str) for value in values)
                found[key] = " and ".join(values) if texts else values[-1]
        return cls.model_validate(found)

    def in_words(self) -> dict[str, str]:
        """The same as text."""
        memory = {} if self.memory_bytes is None else {"memory_bytes": format_size(self.memory_bytes)}
        return {key: str(value) for key, value in self.known().items()} | memory

    def known(self) -> dict[str, str | Number]:
        """What is known of it, by the keys of WORDS."""
        return {key: value for key in WORDS if (value := getattr(self, key))}


def hosts_by_name(value: object) -> object:
    """`hosts` as meta.json has it; it was a list, of hosts that had no other name than their hostname."""
    if isinstance(value, list):
        return {
            str(one.get("hostname", "")): {key: given for key, given in one.items() if key != "name"}
            for one in value
            if isinstance(one, Mapping)
        }
    return value


def _part(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = facts.get(key)
    return part if isinstance(part, Mapping) else {}
