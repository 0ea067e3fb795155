"""The sampler in the guest ends, stands still, or says what is no sample; guest-probe fails in a snapshot."""

from __future__ import annotations

from campaign.fault import STEP, Expected, Fault
from campaign.guest_files import ARMED, IN_SNAPSHOT, UNTIL_ARMED, python_in_guest
from campaign.scene import Scene

_SAMPLER = "/usr/local/bin/guest-probe sample"
# Another process of root's writes into the very stream: it takes a copy of the descriptor (pidfd_getfd(2)).
_INTO_STREAM = """\
import ctypes, os, signal, subprocess, time
pid = int(subprocess.check_output(["pgrep", "-f", {who!r}]).split()[0])
if {stop}:
    os.kill(pid, signal.SIGSTOP)
stream = ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), 1, 0)
def say(text):
    while text:
        text = text[os.write(stream, text):]
{saying}
"""


def _into_stream(saying: str) -> str:
    return python_in_guest(_INTO_STREAM.format(who=f"^{_SAMPLER}", saying=saying, stop=True))


def _kill_sampler(scene: Scene) -> None:
    scene.in_guest(f"pkill -KILL -f '^{_SAMPLER}'")


def _stop_sampler(scene: Scene) -> None:
    scene.in_guest(f"pkill -STOP -f '^{_SAMPLER}'")


def _garbage(scene: Scene) -> None:
    scene.in_guest(_into_stream("say(bytes(range(256)) * 64 + b'\\n')"))


def _half_line(scene: Scene) -> None:
    scene.in_guest(_into_stream("say(b'#tick 123')\nos.kill(pid, signal.SIGKILL)"))


def _no_newline(scene: Scene) -> None:
    scene.in_guest(_into_stream("for _ in range(1 << 14):\n    say(b'x' * (1 << 16))"))


def _huge_file(scene: Scene) -> None:
    scene.in_guest(_into_stream("say(b'#tick 99999999999999\\n#file /proc/meminfo 999999999999\\n')"))


def _in_snapshot(command: str) -> str:
    return IN_SNAPSHOT % command


def _kill_in_snapshot(scene: Scene) -> None:
    scene.in_guest(_in_snapshot("kill -KILL $p"))


# An interpreter takes as long to start in an emulated guest as a snapshot takes: it is there before.
_TRUNCATE = f"""\
def used():
    return open(f"/proc/{{pid}}/stat").read().split()[13:15]
began = used()
open({ARMED!r}, "w").close()
while used() == began:
    pass
say(b"#flags 4096\\n" + b"x" * 100)
os.kill(pid, signal.SIGKILL)
"""


def _truncate_in_snapshot(scene: Scene) -> None:
    who = "^/usr/local/bin/guest-probe snapshot"
    scene.in_guest(python_in_guest(_INTO_STREAM.format(who=who, saying=_TRUNCATE, stop=False)))


_SNAPSHOT_STEPS = (UNTIL_ARMED, "snapshot: {label: cut}")
_NO_SAMPLE = "the sampler in the guest sent what is no sample"

FAULTS = [
    Fault(
        "sampler-killed",
        "guest",
        "the sampler is killed",
        "step",
        Expected(3, "lost", ("the sampler in the guest (guest-probe) ended though the guest answers",), 60),
        strike=_kill_sampler,
        short=True,
    ),
    Fault(
        "sampler-stopped",
        "guest",
        "the sampler is stopped (SIGSTOP)",
        "step",
        Expected(3, "lost", ("a signal has stopped the sampler in the guest",), 150),
        strike=_stop_sampler,
    ),
    Fault(
        "sampler-garbage",
        "guest",
        "the sampler's stream has 16 KiB of garbage",
        "step",
        Expected(3, "lost", (_NO_SAMPLE,), 60),
        strike=_garbage,
    ),
    Fault(
        "sampler-half-line",
        "guest",
        "the sampler's stream ends in half a line",
        "step",
        Expected(3, "lost", ("the sampler in the guest",), 60),
        strike=_half_line,
    ),
    Fault(
        "sampler-no-newline",
        "guest",
        "the sampler's stream has 1 GiB without a newline",
        "step",
        Expected(3, "lost", (_NO_SAMPLE,), 60),
        strike=_no_newline,
    ),
    Fault(
        "sampler-huge-file",
        "guest",
        "the sampler announces a file of 1 TB",
        "step",
        Expected(3, "lost", (_NO_SAMPLE,), 60),
        strike=_huge_file,
    ),
    Fault(
        "probe-killed-in-snapshot",
        "guest",
        "guest-probe is killed",
        "snapshot",
        Expected(3, None, ("error:",), 60),
        steps=_SNAPSHOT_STEPS,
        moment=STEP,
        strike=_kill_in_snapshot,
    ),
    Fault(
        "probe-truncated-in-snapshot",
        "guest",
        "guest-probe sends part of an answer, and ends",
        "snapshot",
        Expected(3, None, ("error:",), 60),
        steps=_SNAPSHOT_STEPS,
        moment=STEP,
        strike=_truncate_in_snapshot,
    ),
]
