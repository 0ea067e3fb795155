"""Debian's mirror stops in the middle of a package, stalls there, gives other bytes, or is not there.

A server on loopback stands before the mirror that apt is set up with, and breaks what comes through.
"""

from __future__ import annotations

import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from campaign.fault import Expected, Fault
from campaign.scene import Scene

from orchestrator.guest.build import debian_mirror

# Answers as apt does which mirror there is; all else is apt-get's own.
_APT_GET = """\
#!/bin/sh
[ "$1" = indextargets ] && exec echo "{mirror}|Debian|trixie"
exec /usr/bin/apt-get "$@"
"""
_TIMEOUT_SECONDS = 60.0
_LARGE = 100_000

Break = Callable[[bytes], bytes]


def half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@contextmanager
def mirror(broken: Break, *, only: str = ".deb", stalls: bool = False) -> Iterator[str]:
    """The address of one that gives `broken` of each larger package with `only` in its path.

    It closes a connection in which something is missing; where it `stalls`, it keeps it open.
    """
    upstream = urlsplit(debian_mirror())
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # as http.server calls it
            try:
                url = upstream._replace(path=self.path).geturl()
                with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # apt's own
                    body: bytes = answer.read()
            except urllib.error.HTTPError as error:
                self.send_error(error.code)
                return
            except OSError:
                self.send_error(502)
                return
            large = self.path.endswith(".deb") and len(body) > _LARGE
            sent = broken(body) if large and only in self.path else body
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(sent)
            self.close_connection = len(sent) < len(body)
            if self.close_connection and stalls:
                over.wait()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{upstream.path}"
        over.set()
        server.shutdown()


@contextmanager
def gone(_: Break) -> Iterator[str]:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    yield f"http://127.0.0.1:{port}/debian/"


def _asks(scene: Scene, address: str) -> None:
    folder = scene.folder / "bin"
    folder.mkdir()
    (folder / "apt-get").write_text(_APT_GET.format(mirror=address))
    (folder / "apt-get").chmod(0o755)
    scene.put_on_path(folder)


def _no_image(scene: Scene) -> None:
    shutil.rmtree(scene.cache / "images", ignore_errors=True)


def built(
    there: Callable[[Break], AbstractContextManager[str]], broken: Break = bytes
) -> Callable[[Scene], tuple[int, str]]:
    """Build an image where there is none."""

    def play(scene: Scene) -> tuple[int, str]:
        with there(broken) as address:
            _asks(scene, address)
            done = scene.orchestrator.call("image", "build")
        return done.code, done.out + done.err

    return play


def run_warm(scene: Scene) -> tuple[int, str]:
    """Run with an image that is there."""
    with gone(bytes) as address:
        _asks(scene, address)
        done = scene.orchestrator.run(scene.write_scenario())
    return done.code, done.out + done.err


def no_half_image(scene: Scene) -> None:
    images = scene.cache / "images"
    left = [path.name for path in images.iterdir() if path.name != ".lock"] if images.is_dir() else []
    assert not left, f"left in the cache: {left}"


FAULTS = [
    Fault(
        "mirror-gone",
        "packages",
        "the mirror is not there, and no image is cached",
        "build",
        Expected(3, None, ("building the image debian-13 failed",), 120, samples=False),
        prepare=_no_image,
        play=built(gone),
        check=no_half_image,
        own_cache=True,
    ),
    Fault(
        "mirror-gone-warm",
        "packages",
        "the mirror is not there, and the image is cached",
        "run",
        Expected(0, "completed", (), 600),
        steps=("wait: {time: 2s}",),
        play=run_warm,
    ),
    Fault(
        "mirror-stops",
        "packages",
        "the mirror closes the connection in the middle of each package, and no image is cached",
        "build",
        Expected(3, None, ("building the image debian-13 failed",), 600, samples=False),
        prepare=_no_image,
        play=built(mirror, half),
        check=no_half_image,
        own_cache=True,
    ),
    Fault(
        "mirror-stalls",
        "packages",
        "the mirror sends half of one package and then nothing, and no image is cached",
        "build",
        Expected(3, None, ("building the image debian-13 failed",), 600, samples=False),
        prepare=_no_image,
        play=built(partial(mirror, only="/libc6_", stalls=True), half),
        check=no_half_image,
        own_cache=True,
    ),
    Fault(
        "mirror-wrong-hash",
        "packages",
        "the last byte of each package is another one, and no image is cached",
        "build",
        Expected(3, None, ("building the image debian-13 failed",), 600, samples=False),
        prepare=_no_image,
        play=built(mirror, flipped),
        check=no_half_image,
        own_cache=True,
    ),
]
