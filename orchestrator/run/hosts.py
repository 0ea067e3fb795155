"""The hosts of one run's trials: what must be alike on all, and what a run that goes on elsewhere knows."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from orchestrator.processes import boot_id
from orchestrator.records.hosts import HostRecord
from orchestrator.run.unit import Unit
from orchestrator.store import Run

Facts = Mapping[str, object]


def comparable(facts: Facts) -> dict[str, object]:
    """Facts without what each host has of its own: an image's key names its ssh keys as well."""
    image = facts.get("image")
    if not isinstance(image, Mapping):
        return dict(facts)
    return {**facts, "image": {name: value for name, value in image.items() if name != "key"}}


def of_any_host(facts: Facts) -> dict[str, object]:
    """Of these, what trials of two hosts must have in common. Not QEMU and libvirt: none is compared with one
    of another host."""
    return {name: fact for name, fact in comparable(facts).items() if name != "hypervisor"}


def name_here(run: Run, unit: Unit) -> str:
    """What trials of a run that goes on shall call their host.

    A machine that has another hostname by now, as a container that was started again has, is still itself:
    its boot tells.
    """
    if unit.kind.elsewhere:
        return unit.host_name
    wrote = [(trial.host, trial.unit.writer if trial.unit else run.meta.writer) for trial in run.trials]
    named = {host for host, by in wrote if by and by.hostname == host and by.boot_id == boot_id()}
    return named.pop() if len(named) == 1 else unit.host_name


def other_hosts(run: Run, here: str) -> dict[str, HostRecord]:
    """The hosts of trials that are there, but for the one called `here`."""
    names = {trial.host for trial in run.trials} - {"", here}
    known = dict(run.meta.hosts)
    if len(names) == 1 and not known:
        hostname = run.meta.writer.hostname if run.meta.writer else ""
        known = {name: HostRecord.of(hostname, run.meta.facts()) for name in names}
    return {name: known.get(name, HostRecord()) for name in sorted(names)}


def with_this_host(others: Mapping[str, HostRecord], run: Run, here: str) -> dict[str, object]:
    """`hosts` of meta.json, once `run` says what is known of the one called `here`; empty without others."""
    if not others:
        return {}
    before = [run.meta.hosts[here]] if here in run.meta.hosts else []
    now = HostRecord.of(socket.gethostname(), run.meta.facts())
    hosts = {**others, here: HostRecord.joined([*before, now])}
    return {"hosts": {name: hosts[name].known() for name in sorted(hosts)}}


def before_resuming(run: Run, here: str) -> dict[str, object]:
    """What trials that are there ran on, as far as those to come must have the same."""
    if not other_hosts(run, here):
        return run.meta.facts()
    if not run.meta.hosts:
        return comparable(run.meta.facts())
    facts = of_any_host(run.meta.facts())
    if here in run.meta.hosts:
        own = run.meta.hosts[here].known()
        facts["hypervisor"] = {name: own[name] for name in ("qemu", "libvirt") if name in own}
    return facts
