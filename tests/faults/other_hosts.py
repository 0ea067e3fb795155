"""Hosts that ssh reaches, or does not: on loopback, with a stand-in for OpenSSH where one answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from campaign.fault import Expected, Fault
from campaign.scene import Scene

# Runs here what is asked of the host, as ssh would there; libvirt's connection is never answered.
_SSH = """\
#!/bin/sh
for word; do last=$word; done
case "$*" in
*libvirt*|*" nc "*) exec sleep 1000 ;;
*) exec sh -c "$last" ;;
esac
"""


@contextmanager
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(listening.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        for one in kept:
            one.close()


def _ran_on(scene: Scene, host: str) -> tuple[int, str]:
    path = scene.write_scenario()
    done = scene.orchestrator.run(path, "--connect", host)
    return done.code, done.out + done.err


def ssh_says_nothing(scene: Scene) -> tuple[int, str]:
    with silent_port() as port:
        return _ran_on(scene, f"qemu+ssh://root@127.0.0.1:{port}/system")


def ssh_refuses(scene: Scene) -> tuple[int, str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    return _ran_on(scene, f"qemu+ssh://root@127.0.0.1:{port}/system")


def libvirt_says_nothing(scene: Scene) -> tuple[int, str]:
    folder = scene.folder / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(_SSH)
    (folder / "ssh").chmod(0o755)
    scene.put_on_path(folder)
    return _ran_on(scene, "qemu+ssh://root@127.0.0.1/system")


FAULTS = [
    Fault(
        "ssh-says-nothing",
        "other hosts",
        "the host accepts the connection of ssh and says nothing",
        "start",
        Expected(3, None, ("cannot reach root@127.0.0.1",), 60, samples=False),
        play=ssh_says_nothing,
    ),
    Fault(
        "ssh-refuses",
        "other hosts",
        "nothing listens where the host's ssh should be",
        "start",
        Expected(3, None, ("cannot reach root@127.0.0.1", "Connection refused"), 30, samples=False),
        play=ssh_refuses,
    ),
    Fault(
        "libvirt-says-nothing",
        "other hosts",
        "ssh works, and libvirt there never answers",
        "start",
        Expected(3, None, ("did not answer in 90 s",), 150, samples=False),
        play=libvirt_says_nothing,
    ),
]
