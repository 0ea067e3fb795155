"""The sampler in the guest has ended or stands still, though the guest answers."""

from __future__ import annotations

from typing import ClassVar, Final

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import CAUSES, STOPPED, Cause, Scene
from orchestrator.guest.oom_log import find_kills, in_words
from orchestrator.printable import clean, printable

_NAME: Final = "guest-probe"
_SECONDS: Final = 20.0


@CAUSES.register("sampler")
class Sampler(Cause):
    """What the guest says of its own process."""

    order: ClassVar = 70
    patient: ClassVar = True

    def look(self, scene: Scene) -> GuestError | None:
        if scene.seen.sampler_ended:
            log = printable(scene.shell.run(["dmesg", "--kernel"], seconds=_SECONDS).text)
            kill = next((one for one in reversed(find_kills(log)) if one.comm == _NAME), None)
            how = f": {clean(in_words(kill))}" if kill else ""
            return scene.lost(f"the sampler in the guest ({_NAME}) ended though the guest answers{how}")
        if not scene.shell.connected:
            return None
        listed = scene.shell.run(["ps", "-C", _NAME, "-o", "stat=,args="], seconds=_SECONDS, check=False).text
        states = [line.split()[0] for line in listed.splitlines() if f"{_NAME} sample " in line]
        if any(state.startswith(STOPPED) for state in states):
            return scene.lost(f"a signal has stopped the sampler in the guest ({_NAME})")
        return None
