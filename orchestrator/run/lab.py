"""Starts a nested host by itself, for people and for runs with `host: lab`."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from orchestrator.guest.boot import Guest
from orchestrator.guest.definition import load_definition
from orchestrator.guest.image import ensure_image
from orchestrator.guest.keys import ensure_keys
from orchestrator.guest.states import SavedState, start_from_state
from orchestrator.host.accel import choose
from orchestrator.host.kvm_host import KVM_HOST
from orchestrator.host.lab import LAB_FILE, RunningLab
from orchestrator.host.libvirt_host import open_host
from orchestrator.host.machine import Machine
from orchestrator.host.runtime import runtime_folder
from orchestrator.host.ssh import own_target
from orchestrator.launch.environment import (
    Bootable,
    SharedHost,
    TrialEnvironment,
    guest_spec,
    install,
    quieten,
)
from orchestrator.launch.host_facts import host_facts
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.processes import boot_id, started_ticks
from orchestrator.run.programs import guest_programs
from orchestrator.store.atomic import replace_text

_SECONDS = 60.0
_LOOK_SECONDS = 1.0


@contextmanager
def lab_host(places: ProjectPaths, kernel: str, machine: Machine, progress: Progress) -> Iterator[Guest]:
    """Start a nested host, from its saved state if there is one, and tell of it in its runtime folder."""
    with ExitStack() as stack:
        runtime = stack.enter_context(runtime_folder(Path("lab")))
        keys = ensure_keys(places.cache)
        definition = load_definition(places.guests / f"{KVM_HOST}.yaml")
        image = ensure_image(definition, keys, places.cache, progress=progress.note)
        accel = choose("auto", image.kernel_to_try(definition.default_kernel), places.cache).name
        host = stack.enter_context(open_host(None, runtime, places.cache))
        programs = guest_programs({}, places)
        environment = TrialEnvironment(
            host, image, keys, places, accel, definition, runtime, progress, programs, SharedHost()
        )
        wanted = Bootable(definition.name, kernel, machine)

        def make(state: SavedState) -> None:
            progress.note(f"booting a nested host, itself under {accel}")
            scratch = runtime / "state"
            with ExitStack() as making:
                making.callback(shutil.rmtree, scratch, ignore_errors=True)
                guest = making.enter_context(
                    environment.guests.booted(
                        host,
                        image,
                        image.boot_files(kernel),
                        machine,
                        keys,
                        name="lab",
                        accel=accel,
                        definition=definition,
                        scratch=scratch,
                        disk=state.disk,
                    )
                )
                with guest.telling():
                    install(guest, environment, scratch / "s")
                    quieten(guest)
                    progress.note("saving it")
                    guest.shell.close()
                    guest.domain.save(state.memory)
                shutil.copyfile(scratch / "console.log", state.console_log)

        def restore(state: SavedState) -> Guest:
            progress.note("restoring it")
            log = runtime / "console.log"
            return stack.enter_context(
                environment.guests.restored(host, state, keys, scratch=runtime / "guest", console_log=log)
            )

        spec = guest_spec(wanted, environment)
        guest = start_from_state(places.cache, spec, make=make, restore=restore, tell=progress.note)
        with guest.telling():
            guest.shell.run(["date", "-s", f"@{time.time():.3f}"], seconds=_SECONDS)
        target = own_target(guest.shell.port, keys.client, guest.shell.known_hosts, runtime)
        with open_host(target, runtime, places.cache) as there:
            facts = host_facts(there)
        running = RunningLab(
            pid=os.getpid(),
            started_ticks=started_ticks(os.getpid()) or 0,
            boot_id=boot_id(),
            port=guest.shell.port,
            key=str(keys.client),
            known_hosts=str(guest.shell.known_hosts),
            folder=str(runtime),
            accel=accel,
            facts=facts,
        )
        replace_text(runtime / LAB_FILE, json.dumps(asdict(running)))
        yield guest


def keep(guest: Guest) -> None:
    """Wait until the lab's guest ends by itself. Raises what happened to it."""
    while True:
        guest.must_live()
        time.sleep(_LOOK_SECONDS)
