"""A fleet on one machine: hosts in network namespaces, with addresses, caches and workers, and TLS.

One namespace has the head, and clients call from it. Each host is another, with a link to it that can be cut.
Trials are those of sleeping_trial.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from driver import ROOT, Finished

SLEEPING = Path(__file__).with_name("sleeping_trial.py")
_UNKNOWN_MAC = "02:00:00:00:00:01"  # a MAC address that no end has
HEAD = "tls://10.77.0.1:8786"
SCENARIO = """\
version: 1
name: small
guest: debian-13
accel: tcg
machine: {memory: 512MiB, vcpus: 1}
arms: {a: , b: {setup: {thp: never}}, c: {setup: {thp: always}}}
repeats: 4
steps:
  - wait: {time: 1s}
"""


def ip(*words: str) -> None:
    """ip(8)."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def until(what: Callable[[], Any], seconds: float = 180, said: Callable[[], str] = lambda: "") -> Any:
    """Wait until `what` gives something true; what it gave."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"it did not come in {seconds} s: {said()}"
        time.sleep(0.05)
    return found


@dataclass
class Lab:
    """The network, its hosts, and what runs there."""

    folder: Path
    tag: str
    stack: ExitStack
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._short = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
        self._short.chmod(0o711)  # passt, started as root, passes through as `nobody`
        self.stack.callback(shutil.rmtree, self._short, ignore_errors=True)
        self.results, self.fleet = self.folder / "results", self.folder / "keys"
        self.scenario = self.folder / "small.yaml"
        self.scenario.write_text(SCENARIO)
        self.call("fleet", "init", str(self.fleet))
        self.configure()
        self._namespace("net")
        ip("-n", self.ns("net"), "addr", "add", "10.77.0.1/32", "dev", "lo")

    def configure(self, **words: object) -> None:
        """Write fleet.toml with other values."""
        text = (self.fleet / "fleet.toml").read_text()
        lines = [line for line in text.splitlines() if line.partition(" ")[0] not in {"head", *words}]
        values = {"head": HEAD, **words}
        place = lines.index("version = 1") + 1
        lines[place:place] = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        (self.fleet / "fleet.toml").write_text("\n".join(lines) + "\n")

    def ns(self, name: str) -> str:
        """A namespace, by its name in this lab."""
        return f"{self.tag}{name}"

    def _namespace(self, name: str) -> None:
        ip("netns", "add", self.ns(name))
        self.stack.callback(subprocess.run, ["ip", "netns", "del", self.ns(name)], check=False)
        ip("-n", self.ns(name), "link", "set", "lo", "up")

    def add_host(self, name: str, number: int) -> None:
        """A host that is one link away."""
        self._namespace(name)
        link, net, own = f"{self.tag}{number}", self.ns("net"), self.ns(name)
        ip("-n", net, "link", "add", link, "type", "veth", "peer", "name", "up0", "netns", own)
        for ns, device, end in ((net, link, 1), (own, "up0", 2)):
            ip("-n", ns, "addr", "add", f"10.77.{number}.{end}/30", "dev", device)
            ip("-n", ns, "link", "set", device, "up")
        ip("-n", own, "route", "add", "default", "via", f"10.77.{number}.1")  # passt(1) wants one
        self.cache(name).mkdir()

    def cut(self, number: int) -> None:
        """Cut the link of a host: what either side sends reaches no one, and neither end learns of it."""
        for where, other in self._ends(number):
            ip(
                "-n",
                where[0],
                "neigh",
                "replace",
                other,
                "lladdr",
                _UNKNOWN_MAC,
                "dev",
                where[1],
                "nud",
                "permanent",
            )

    def mend(self, number: int) -> None:
        """Undo `cut`."""
        for where, other in self._ends(number):
            ip("-n", where[0], "neigh", "del", other, "dev", where[1])

    def _ends(self, number: int) -> list[tuple[tuple[str, str], str]]:
        """Namespace and device of each end, and the address of the other."""
        return [
            ((self.ns("net"), f"{self.tag}{number}"), f"10.77.{number}.2"),
            ((self.ns(f"h{number}"), "up0"), f"10.77.{number}.1"),
        ]

    def cache(self, name: str) -> Path:
        """The cache of a host."""
        return self.folder / f"cache-{name}"

    def runtime(self, name: str) -> Path:
        """The runtime folder of a host: short, as unix sockets' paths have to fit below it."""
        return self._short / name

    def environ(self, name: str, **more: str) -> dict[str, str]:
        """What runs on a host has."""
        own = {
            "ORCHESTRATOR_CACHE": str(self.cache(name)),
            "ORCHESTRATOR_RUNTIME": str(self.runtime(name)),
            "PYTHONPATH": str(ROOT),
        }
        return {**os.environ, **own, **more}

    def start(self, name: str, argv: Sequence[str], *, at: str = "", **more: str) -> subprocess.Popen[bytes]:
        """Start a program in a namespace."""
        with self.log(name).open("ab") as sink:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.ns(at or name), sys.executable, *argv],
                stdout=sink,
                stderr=sink,
                env=self.environ(at or name, **more),
                start_new_session=True,
            )
        self.processes[name] = process
        self.stack.callback(_end, process)
        return process

    def log(self, name: str) -> Path:
        """What a program has said."""
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        """The same, as text."""
        return self.log(name).read_text(errors="replace") if self.log(name).exists() else ""

    def head(self) -> None:
        """Start the head."""
        before = self.said("net").count("listening at")
        self.start("net", ["-m", "orchestrator", "fleet", "head", *self.config()])
        until(lambda: self.said("net").count("listening at") > before, 180, lambda: self.said("net"))

    def worker(
        self, name: str, *, seconds: float = 1, keys: Path | None = None, wait: bool = True, **more: str
    ) -> None:
        """Start the worker of a host, whose trials sleep."""
        words = ["serve", HEAD, *self.config(keys), "--name", name]
        self._join(name, [str(SLEEPING), *words], wait=wait, SLEEP_SECONDS=str(seconds), **more)

    def real_worker(self, name: str, images: Path | None) -> None:
        """Start the worker of a host, whose trials have guests, made from images that it has or is given."""
        if images:
            # With the keys that are in them. Images are linked, since each is large and none changes.
            shutil.copytree(images.parent / "ssh", self.cache(name) / "ssh")
            shutil.copytree(images, self.cache(name) / "images", symlinks=True, copy_function=os.link)
        words = ["worker", HEAD, *self.config(), "--name", name, "--guests-dir", str(ROOT / "guests")]
        self._join(name, ["-m", "orchestrator", *words], wait=True)

    def _join(self, name: str, argv: Sequence[str], *, wait: bool, **more: str) -> None:
        before = self.said(name).count("does trials for")
        self.start(name, argv, **more)
        if wait:
            until(lambda: self.said(name).count("does trials for") > before, 180, lambda: self.said(name))

    def config(self, keys: Path | None = None) -> list[str]:
        """--fleet."""
        return ["--fleet", str((keys or self.fleet) / "fleet.toml")]

    def run_words(self, *words: str) -> list[str]:
        """`run` of the scenario on the fleet."""
        own = ["--results", str(self.results), "--guests-dir", str(ROOT / "guests")]
        return ["run", str(self.scenario), *self.config(), *own, *words]

    def call(self, *words: str, seconds: float = 300) -> Finished:
        """Call the command line from the network."""
        at = ["ip", "netns", "exec", self.ns("net")] if words[:2] != ("fleet", "init") else []
        done = subprocess.run(
            [*at, sys.executable, "-m", "orchestrator", *words],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=self.environ("net"),
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Begin to call it; what it says is `said("client")`."""
        self.log("client").unlink(missing_ok=True)
        return self.start("client", ["-m", "orchestrator", *words], at="net")

    def meta(self) -> Any:
        """meta.json of the only run."""
        (path,) = self.results.glob("*/meta.json")
        return json.loads(path.read_text())

    def directory(self) -> Path:
        """The folder of the only run."""
        (path,) = self.results.glob("*/meta.json")
        return path.parent

    def hosts_of(self) -> dict[str, str]:
        """Of each trial that has come, the host that did it."""
        found = self.directory().glob("trials/*/unit.json")
        return {path.parent.name: json.loads(path.read_text())["host"] for path in found}

    def hosts_of_rounds(self) -> dict[str, set[str]]:
        """For each repeat, the hosts that did its trials."""
        found: dict[str, set[str]] = defaultdict(set)
        for trial, host in self.hosts_of().items():
            found[trial.rpartition("-")[2]].add(host)
        return found

    def units(self, name: str = "") -> list[int]:
        """Processes of trials that run, on a host or any."""
        where = str(self.cache(name)) if name else str(self.folder / "cache-")
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            words = process.info["cmdline"] or ()
            if "trial" in words and any(word.startswith(where) for word in words):
                found.append(process.info["pid"])
        return found

    def left(self) -> list[str]:
        """What runs, or lies where it should not, once all is done."""
        folders = [path for name in ("units",) for path in self.folder.glob(f"cache-*/fleet/{name}/*")]
        folders += self.folder.glob("run-*/orchestrator-*/*")
        folders += self.folder.glob("results/*/.*.arriving")
        return [*map(str, self.units()), *map(str, folders)]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def lab_in(folder: Path, hosts: int = 3) -> Iterator[Lab]:
    """A lab of so many hosts `h1`, ..., with a head and no workers yet."""
    with ExitStack() as stack:
        lab = Lab(folder, f"f{os.getpid() % 10000}", stack)
        for number in range(1, hosts + 1):
            lab.add_host(f"h{number}", number)
        yield lab
