"""A Slurm of one machine, its controller and its only node: no systemd, and nothing outside of a folder.

It is in a network namespace of its own, with nothing else in it: its ports are reached from nowhere else.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from driver import ROOT

_START_SECONDS = 30
# Jobs are of whoever runs the tests. Processes of a task are found by their parents, as cgroups are not ours.
# SIGKILL follows SIGTERM by KillWait; tasks that ended are told of for longer than a test takes. The node is
# believed to have more cores than it may have (config_overrides): what runs on it only waits.
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
KillWait=30
MinJobAge=300
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=tests Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """Where it is, and how to get into it: the words before a command, and its environment."""

    folder: Path
    into: Sequence[str]
    environment: Mapping[str, str]

    def call(self, *argv: str) -> str:
        """What a command printed that was called where the cluster is."""
        done = subprocess.run(
            [*self.into, *argv],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout


@contextmanager
def cluster(cpus: int = 8) -> Iterator[Cluster]:
    """One that answers. When it ends, nothing of it is left."""
    programs = _programs()
    with ExitStack() as stack:
        # The path of a socket has to fit below it.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/var/tmp")))
        folder.chmod(0o755)  # munge wants its socket to be in reach of others
        for name in ("state", "spool"):
            (folder / name).mkdir()
        namespace = _started(stack, folder, ["unshare", "--net", "sleep", "infinity"])
        into = ("nsenter", f"--net=/proc/{namespace.pid}/ns/net", "--")
        _in_its_own_network(namespace.pid)
        stack.callback(_end_all_in, _network(namespace.pid).stat())
        # getaddrinfo(3) with AI_ADDRCONFIG, by which Slurm listens, finds nothing where loopback is all, and
        # passt(1), which guests have, wants a default route. It leads nowhere.
        for words in (
            "link set lo up",
            "link add up0 type veth peer name nowhere",
            "address add 192.0.2.2/30 dev up0",
            "link set nowhere up",
            "link set up0 up",
            "route add default via 192.0.2.1",
        ):
            subprocess.run([*into, "ip", *words.split()], check=True)
        user, host = getpass.getuser(), socket.gethostname().partition(".")[0]
        text = _CONFIGURATION.format(
            folder=folder, user=user, host=host, cpus=cpus, memory=psutil.virtual_memory().total >> 20
        )
        (folder / "slurm.conf").write_text(text)
        paths = os.pathsep.join([*(str(path) for path in programs), os.environ["PATH"]])
        made = Cluster(folder, into, {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": paths})
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        environment = {**os.environ, **made.environment}

        def start(*argv: str) -> None:
            _started(stack, folder, [*into, *argv], environment)

        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        _wait((folder / "munge.socket").exists, folder)
        start(_program("slurmctld", paths), "-D", "-c")
        start(_program("slurmd", paths), "-D", "-N", "node", "-d", _program("slurmstepd", paths))
        _wait(lambda: _idle(made), folder)
        yield made


def _programs() -> list[Path]:
    """Folders of Slurm's programs, as ./bootstrap unpacks them; none where they are installed."""
    return sorted((ROOT / ".venv" / "slurm").glob("usr/*bin"))


def _program(name: str, paths: str) -> str:
    """A daemon: Debian's has another name beside the one that its alternatives give it."""
    found = shutil.which(name, path=paths) or shutil.which(f"{name}-wlm", path=paths)
    assert found, f"there is no {name}: ./bootstrap tox brings it"
    return found


def _started(
    stack: ExitStack, folder: Path, argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    together = ("setpriv", "--pdeathsig", "KILL")  # should the tests be killed
    with (folder / "output").open("ab") as sink:
        process = subprocess.Popen(
            [*together, *argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def _end_all_in(namespace: os.stat_result) -> None:
    """What is left in a network namespace when the daemons have ended: tasks that run on."""
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.path.samestat(_network(process.pid).stat(), namespace):
                process.kill()


def _network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


def _in_its_own_network(pid: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while _network(pid).samefile(_network(os.getpid())):
        assert time.monotonic() < end, "unshare --net does not"
        time.sleep(0.01)


def _idle(made: Cluster) -> bool:
    try:
        return made.call("sinfo", "--noheader", "--format=%T").strip() == "idle"
    except AssertionError:  # it does not answer yet
        return False


def _wait(look: object, folder: Path) -> None:
    assert callable(look)
    end = time.monotonic() + _START_SECONDS
    while not look():
        logs = [path for path in folder.iterdir() if path.name.endswith("log") or path.name == "output"]
        said = "\n".join(path.read_text(errors="replace")[-2000:] for path in logs)
        assert time.monotonic() < end, f"Slurm does not come up:\n{said}"
        time.sleep(0.2)
