"""A trial on a nested host: a guest of this machine that is a KVM host, and the trial's guest within it.

A saved state is that of the host, with the guest in it: both go on from the same instant. The guest is
suspended while the host is saved, for QEMU refuses to load a vCPU that was saved, emulated, in guest mode
(cpu_post_load(), target/i386/machine.c). What a host does with a guest's memory depends on what is set when
that one boots, so this is part of the state.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from orchestrator.guest.boot import Guest, adopted, booted, restored
from orchestrator.guest.states import GuestSpec, SavedState
from orchestrator.host.libvirt_host import LibvirtHost, open_host
from orchestrator.host.ssh import own_target
from orchestrator.plan import TrialPlan
from orchestrator.records.events import GuestStart
from orchestrator.run.host_settings import apply_host_settings
from orchestrator.run.start import Begin, Bootable, Lab, NestedHosts, guest_spec, install, quieten

NAME = "guest"  # of the trial's guest on its host
_SECONDS = 60.0


def nested_guest(begin: Begin) -> tuple[Guest, LibvirtHost]:
    """The trial's guest on a host of its own, and that; both are ended with the stack of `begin`."""
    lab = begin.lab
    nested = _of(lab)
    if begin.plan.start == "cold":
        scratch = begin.scratch / "host"
        begin.scratch.mkdir(mode=0o711, parents=True)
        outer = _boot(begin, nested, scratch, scratch / "disk.qcow2", begin.stack)
        host = _connect(begin, outer, begin.scratch, begin.stack)
        guest = begin.stack.enter_context(
            begin.set_up(host, NAME, begin.scratch / "guest", begin.writer.console_log)
        )
        begin.writer.record(GuestStart(t_ns=begin.now_ns(), start="cold", state=""))
        return replace(guest, host=outer), host
    return begin.from_state(
        nested_spec(begin.plan, lab),
        make=lambda state: make_nested(begin, state),
        restore=lambda state: _restore(begin, state),
    )


def nested_spec(plan: TrialPlan, lab: Lab) -> GuestSpec:
    """What a nested host with a guest in it is: the host's own spec, with all that the guest is made of."""
    nested = _of(lab)
    host = Bootable(nested.definition.name, plan.host_kernel, plan.host_machine, boot=plan.boot)
    spec = guest_spec(
        host, replace(lab, image=nested.image, definition=nested.definition, accel=nested.accel)
    )
    inner = guest_spec(Bootable.of(plan), lab)
    return replace(
        spec,
        installed=(
            *spec.installed,
            ("suspended guest", inner.guest_key),
            ("host", plan.host_setup.model_dump_json()),
        ),
    )


def _of(lab: Lab) -> NestedHosts:
    if lab.nested is None:
        raise ValueError("the run has no nested hosts")
    return lab.nested


def make_nested(begin: Begin, state: SavedState) -> None:
    """Boot a host and a guest in it, and save the host."""
    nested = _of(begin.lab)
    scratch = begin.lab.runtime / "state"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        scratch.mkdir(mode=0o711)
        outer = _boot(begin, nested, scratch / "host", state.disk, stack)
        with ExitStack() as connected:
            host = _connect(begin, outer, scratch, connected)
            guest = connected.enter_context(
                begin.set_up(host, NAME, scratch / "guest", begin.writer.console_log, keep=True)
            )
            quieten(guest)
            guest.shell.close()
            guest.domain.suspend()
        # Nobody is connected any more: a connection that is saved would linger in what is restored.
        begin.save(outer, state)
        shutil.copyfile(begin.writer.host_console_log, state.console_log)


def _boot(begin: Begin, nested: NestedHosts, scratch: Path, disk: Path, stack: ExitStack) -> Guest:
    plan, lab = begin.plan, begin.lab
    lab.progress.step("boot the host", 0, len(plan.steps))
    outer = stack.enter_context(
        booted(
            lab.host,
            nested.image,
            nested.image.boot_files(plan.host_kernel),
            plan.host_machine,
            lab.keys,
            name=f"host-{lab.runtime.name}",
            accel=nested.accel,
            definition=nested.definition,
            scratch=scratch,
            progress=lambda _: None,
            # The trial's, also when a state is made: a host that does not come up is seen there.
            console_log=begin.writer.host_console_log,
            disk=disk,
        )
    )
    with outer.telling():
        quieten(outer)
        install(outer, lab.programs, lab.places.playbooks, scratch / "s", check=outer.must_live)
    return outer


def _connect(begin: Begin, outer: Guest, scratch: Path, stack: ExitStack) -> LibvirtHost:
    """The libvirt of a nested host, with what the trial sets there."""
    target = own_target(outer.shell.port, outer.keys.client, outer.shell.known_hosts, scratch)
    with outer.telling():
        host = stack.enter_context(
            open_host(replace(target, ours=True), begin.lab.runtime, begin.lab.places.cache)
        )
        stack.enter_context(apply_host_settings(host.shell, begin.plan.host_setup))
    return host


def _restore(begin: Begin, state: SavedState) -> tuple[Guest, LibvirtHost]:
    lab, scratch = begin.lab, begin.scratch
    outer = begin.stack.enter_context(
        restored(
            lab.host,
            state,
            lab.keys,
            scratch=scratch,
            console_log=begin.writer.host_console_log,
        )
    )
    with outer.telling():
        outer.shell.run(["date", "-s", f"@{time.time():.3f}"], seconds=_SECONDS)
    host = _connect(begin, outer, scratch, begin.stack)
    with outer.telling():
        guest = begin.stack.enter_context(
            adopted(host, NAME, lab.keys, scratch=scratch / "guest", console_log=begin.writer.console_log)
        )
    return replace(guest, host=outer), host
