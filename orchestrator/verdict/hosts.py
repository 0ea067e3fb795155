"""The hosts of trials: what differs between them is no difference between arms.

A host is a block (docs/statistics.md). Arms are compared within hosts; where no host has trials of both, they
are not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from orchestrator.records.hosts import WORDS
from orchestrator.verdict.figures import ArmFigures, RunFigures

# Keys of RunFigures.facts that are a host's own, and what a HostRecord calls them.
OF_A_HOST: Final[Mapping[str, str]] = {
    "host_cpu": "cpu",
    "host_kernel": "kernel",
    "host_thp": "thp",
    "qemu": "qemu",
    "libvirt": "libvirt",
}
_NO_MATTER: Final = "hostname"  # by which no figure is another
_UNKNOWN: Final = "unknown"


def names_of(arms: Collection[ArmFigures]) -> tuple[str, ...]:
    """The hosts of their trials that came to an end, good or bad, by name."""
    return tuple(sorted({host for arm in arms for host in arm.boot_hosts.values()}))


def are_blocks(base: RunFigures, other: RunFigures, varies: Collection[str]) -> bool:
    """Whether trials of two runs are to be compared host by host.

    Two runs of one host each are compared as they are: by what is known of their hosts, as their names say
    nothing. So are any, where the host is the question.
    """
    return "host" not in varies and max(len(names_of(run.arms)) for run in (base, other)) > 1


def why_apart(first: ArmFigures, second: ArmFigures) -> str:
    """Why there is nothing to compare, where two arms have no host in common; else empty."""
    hosts = [sorted({trial.host for trial in arm.trials}) for arm in (first, second)]
    if not all(hosts) or set(hosts[0]) & set(hosts[1]):
        return ""
    where = [f"{arm.name} ran on {_list(on)} only" for arm, on in zip((first, second), hosts, strict=True)]
    return f"{', '.join(where)}: what differs between hosts would pass for a difference between arms"


def notes_of(run: RunFigures, arms: Sequence[ArmFigures]) -> Iterator[str]:
    """That a run is of several hosts, in what these differ, and that arms are not balanced over them."""
    hosts = names_of(arms)
    if len(hosts) < 2:
        return
    yield (
        f"trials of {len(hosts)} hosts ({_list(hosts)}): compared within each, and the differences averaged"
        + "".join(f"; {one}" for one in differing({name: run.hosts.get(name, {}) for name in hosts}))
    )
    counts = {arm.name: Counter(trial.host for trial in arm.trials) for arm in arms if arm.trials}
    if any(len({count[host] for count in counts.values()}) > 1 for host in hosts):
        each = ", ".join(
            f"{arm} {' and '.join(str(count[host]) for host in hosts)}" for arm, count in counts.items()
        )
        yield (
            f"arms are not balanced over hosts (trials on {_list(hosts)}: {each}): "
            "medians of arms have the difference between hosts in them"
        )


def between_runs(base: RunFigures, other: RunFigures) -> Iterator[str]:
    """In what two runs of one host each differ, by the names of their hosts."""
    names = [names_of(run.arms) for run in (base, other)]
    if any(len(each) != 1 for each in names):
        return
    (one,), (another,) = names
    known = {one: base.hosts.get(one, {}), another: other.hosts.get(another, {})}
    if one and another and one != another:
        more = "".join(f"; {what}" for what in differing(known))
        yield f"host {one} against {another}: what differs between them passes for one of the runs{more}"


def differing(hosts: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What of hosts is not the same on all, each with its values: `CPU: X (a), Y (b, c)`."""
    for key, words in WORDS.items():
        by_value: dict[str, list[str]] = {}
        for name, facts in hosts.items():
            by_value.setdefault(facts.get(key) or _UNKNOWN, []).append(name or _UNKNOWN)
        if key != _NO_MATTER and len(by_value) > 1:
            yield f"{words}: {', '.join(f'{value} ({_list(names)})' for value, names in by_value.items())}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(name or "a host without a name" for name in names)
