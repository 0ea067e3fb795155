"""A trial on a nested host: a guest of this machine that is a KVM host, and the trial's guest within it.

A saved state is that of the host, with the guest in it: both go on from the same instant. The guest is
suspended while the host is saved, for QEMU refuses to load a vCPU that was saved, emulated, in guest mode
(cpu_post_load(), target/i386/machine.c). What a host does with a guest's memory depends on what is set when
that one boots, so this is part of the state.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from orchestrator.guest.boot import Guest
from orchestrator.guest.definition import GuestDefinition, load_definition
from orchestrator.guest.image import Image, ensure_image
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.states import GuestSpec, SavedState
from orchestrator.host.accel import choose
from orchestrator.host.kvm_host import KVM_HOST, NESTED_KERNEL
from orchestrator.host.libvirt_host import LibvirtHost, open_host
from orchestrator.host.ssh import own_target
from orchestrator.launch.environment import (
    Bootable,
    GuestLaunch,
    LaunchSpec,
    Starts,
    TrialEnvironment,
    guest_spec,
    install,
    quieten,
)
from orchestrator.launch.host_facts import host_facts
from orchestrator.launch.host_settings import apply_host_settings
from orchestrator.launch.paths import ProjectPaths
from orchestrator.records.events import GuestStart

NAME = "guest"  # of the trial's guest on its host
_SECONDS = 60.0


@dataclass(frozen=True)
class NestedHosts(Starts):
    """What nested hosts are made of: guests of this machine. `accel` is what they themselves run under."""

    own_host: ClassVar[bool] = True

    image: Image
    definition: GuestDefinition
    accel: str

    @classmethod
    def of(cls, places: ProjectPaths, keys: SshKeys, note: Callable[[str], None]) -> Self:
        """As guests/kvm-host.yaml has them. Builds the image if it is not there."""
        definition = load_definition(places.guests / f"{KVM_HOST}.yaml")
        image = ensure_image(definition, keys, places.cache, progress=note)
        # Seen from outside it is a guest like any other.
        return cls(image, definition, choose("auto", image.kernel_to_try(NESTED_KERNEL), places.cache).name)

    def guest(self, begin: GuestLaunch) -> Guest:
        guest, host = self._cold(begin) if begin.plan.start == "cold" else self._warm(begin)
        begin.environment.learn({**host_facts(host), "host_kernel_asked": begin.plan.host_kernel})
        return guest

    def spec(self, plan: LaunchSpec, environment: TrialEnvironment) -> GuestSpec:
        """That of the host, with all that the guest in it is made of."""
        host = Bootable(self.definition.name, plan.host_kernel, plan.host_machine, boot=plan.boot)
        spec = guest_spec(
            host, replace(environment, image=self.image, definition=self.definition, accel=self.accel)
        )
        inner = guest_spec(Bootable.of(plan), environment)
        return replace(
            spec,
            installed=(
                *spec.installed,
                ("suspended guest", inner.guest_key),
                ("host", plan.host_setup.model_dump_json()),
            ),
        )

    def make(self, begin: GuestLaunch, state: SavedState) -> None:
        """Boot a host and a guest in it, and save the host."""
        scratch = begin.environment.runtime / "state"
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            scratch.mkdir(mode=0o711)
            outer = self._boot(begin, scratch / "host", state.disk, stack)
            with ExitStack() as connected:
                host = _connect(begin, outer, scratch, connected)
                guest = connected.enter_context(
                    begin.set_up(host, NAME, scratch / "guest", begin.writer.console_log, keep=True)
                )
                quieten(guest)
                guest.shell.close()
                guest.domain.suspend()
            # No connection is left: a connection that is saved would linger in what is restored.
            begin.save(outer, state)
            shutil.copyfile(begin.writer.host_console_log, state.console_log)

    def _cold(self, begin: GuestLaunch) -> tuple[Guest, LibvirtHost]:
        scratch = begin.scratch / "host"
        begin.scratch.mkdir(mode=0o711, parents=True)
        outer = self._boot(begin, scratch, scratch / "disk.qcow2", begin.stack)
        host = _connect(begin, outer, begin.scratch, begin.stack)
        guest = begin.stack.enter_context(
            begin.set_up(host, NAME, begin.scratch / "guest", begin.writer.console_log)
        )
        begin.writer.record(GuestStart(t_ns=begin.now_ns(), start="cold", state=""))
        return replace(guest, host=outer), host

    def _warm(self, begin: GuestLaunch) -> tuple[Guest, LibvirtHost]:
        return begin.from_state(
            self.spec(begin.plan, begin.environment),
            make=lambda state: self.make(begin, state),
            restore=lambda state, stack: _restore(begin, state, stack),
        )

    def _boot(self, begin: GuestLaunch, scratch: Path, disk: Path, stack: ExitStack) -> Guest:
        plan, environment = begin.plan, begin.environment
        environment.progress.step("boot the host", 0, len(plan.steps))
        outer = stack.enter_context(
            environment.guests.booted(
                environment.host,
                self.image,
                self.image.boot_files(plan.host_kernel),
                plan.host_machine,
                environment.keys,
                name=f"host-{environment.runtime.name}",
                accel=self.accel,
                definition=self.definition,
                scratch=scratch,
                # The trial's, also when a state is made: a host that does not come up is seen there.
                console_log=begin.writer.host_console_log,
                disk=disk,
            )
        )
        with outer.telling():
            quieten(outer)
            install(outer, environment, scratch / "s")
        return outer


def _connect(begin: GuestLaunch, outer: Guest, scratch: Path, stack: ExitStack) -> LibvirtHost:
    """The libvirt of a nested host, with what the trial sets there."""
    target = own_target(outer.shell.port, outer.keys.client, outer.shell.known_hosts, scratch)
    with outer.telling():
        host = stack.enter_context(
            open_host(replace(target, ours=True), begin.environment.runtime, begin.environment.places.cache)
        )
        stack.enter_context(apply_host_settings(host.shell, begin.plan.host_setup, begin.environment.runtime))
    return host


def _restore(begin: GuestLaunch, state: SavedState, stack: ExitStack) -> tuple[Guest, LibvirtHost]:
    environment, scratch = begin.environment, begin.scratch
    outer = stack.enter_context(
        environment.guests.restored(
            environment.host,
            state,
            environment.keys,
            scratch=scratch,
            console_log=begin.writer.host_console_log,
        )
    )
    with outer.telling():
        outer.shell.run(["date", "-s", f"@{time.time():.3f}"], seconds=_SECONDS)
    host = _connect(begin, outer, scratch, stack)
    with outer.telling():
        log = begin.writer.console_log
        guest = stack.enter_context(
            environment.guests.adopted(
                host, NAME, environment.keys, scratch=scratch / "guest", console_log=log
            )
        )
    return replace(guest, host=outer), host
