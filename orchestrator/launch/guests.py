"""The seam to guests: whatever boots, restores or sets one up does so through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from orchestrator.guest import boot, setup
from orchestrator.guest.boot import Guest
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import BootFiles, Image
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.states import SavedState
from orchestrator.host.libvirt_host import LibvirtHost
from orchestrator.host.machine import Machine


class Guests(ABC):
    """Makes guests. Raises GuestError and InfrastructureError."""

    @abstractmethod
    def booted(
        self,
        host: LibvirtHost,
        image: Image,
        files: BootFiles,
        machine: Machine,
        keys: SshKeys,
        *,
        name: str,
        accel: str,
        definition: GuestDefinition,
        scratch: Path,
        console_log: Path | None = None,
        disk: Path | None = None,
        kernel_args: str = "",
        keep: bool = False,
    ) -> AbstractContextManager[Guest]:
        """As `orchestrator.guest.boot.booted`."""

    @abstractmethod
    def restored(
        self, host: LibvirtHost, state: SavedState, keys: SshKeys, *, scratch: Path, console_log: Path
    ) -> AbstractContextManager[Guest]:
        """As `orchestrator.guest.boot.restored`."""

    @abstractmethod
    def adopted(
        self, host: LibvirtHost, name: str, keys: SshKeys, *, scratch: Path, console_log: Path
    ) -> AbstractContextManager[Guest]:
        """As `orchestrator.guest.boot.adopted`."""

    @abstractmethod
    def apply_playbook(
        self,
        playbook: Path,
        variables: dict[str, Any],
        guest: Guest,
        scratch: Path,
        *,
        check: Callable[[], None],
    ) -> None:
        """As `orchestrator.guest.setup.apply_playbook`."""


class QemuGuests(Guests):
    """Guests of QEMU, set up by Ansible."""

    def booted(
        self,
        host: LibvirtHost,
        image: Image,
        files: BootFiles,
        machine: Machine,
        keys: SshKeys,
        *,
        name: str,
        accel: str,
        definition: GuestDefinition,
        scratch: Path,
        console_log: Path | None = None,
        disk: Path | None = None,
        kernel_args: str = "",
        keep: bool = False,
    ) -> AbstractContextManager[Guest]:
        return boot.booted(
            host,
            image,
            files,
            machine,
            keys,
            name=name,
            accel=accel,
            definition=definition,
            scratch=scratch,
            progress=lambda _: None,
            console_log=console_log,
            disk=disk,
            kernel_args=kernel_args,
            keep=keep,
        )

    def restored(
        self, host: LibvirtHost, state: SavedState, keys: SshKeys, *, scratch: Path, console_log: Path
    ) -> AbstractContextManager[Guest]:
        return boot.restored(host, state, keys, scratch=scratch, console_log=console_log)

    def adopted(
        self, host: LibvirtHost, name: str, keys: SshKeys, *, scratch: Path, console_log: Path
    ) -> AbstractContextManager[Guest]:
        return boot.adopted(host, name, keys, scratch=scratch, console_log=console_log)

    def apply_playbook(
        self,
        playbook: Path,
        variables: dict[str, Any],
        guest: Guest,
        scratch: Path,
        *,
        check: Callable[[], None],
    ) -> None:
        setup.apply_playbook(playbook, variables, guest.shell, guest.keys, scratch, check=check)
