"""The connection ended or is silent, and QEMU and passt are as they were: a new connection says more."""

from __future__ import annotations

from typing import ClassVar, Final

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import BOOT_ID, CAUSES, Cause, Scene
from orchestrator.printable import clean

_SECONDS: Final = 20.0

# tcp_timer_handler() in passt's tcp.c: ACK_TIMEOUT is 2 s, TCP_MAX_RETRANS 3, then tcp_rst(). Versions of
# 2026 wait longer: they double the time from one to the next.
_RESET: Final = (
    "passt resets a connection when the guest has not acknowledged what was sent for 8 s: "
    "it, or this machine, may have been too busy"
)


@CAUSES.register("connection")
class Connection(Cause):
    """It is asked last: what is left to say where no other finds itself."""

    order: ClassVar = 90
    patient: ClassVar = True

    def look(self, scene: Scene) -> GuestError | None:
        stands, why = scene.shell.connected, clean(scene.shell.why_closed)
        boot_id, failed = scene.shell.once_more(["cat", BOOT_ID], seconds=_SECONDS)
        boot_id, before = clean(boot_id.strip()), clean(scene.seen.boot_id)
        if failed:
            ended = "the connection stands" if stands else f"the connection ended: {why}"
            return scene.lost(
                "the guest does not answer on ssh any more, though QEMU and passt run",
                details=f"{ended}; a new one failed: {clean(failed)}",
            )
        if before and boot_id != before:
            return scene.lost(
                "the guest booted another kernel: its boot id is another", details=f"{before}, now {boot_id}"
            )
        if stands:  # there is no more to say than what the caller met
            return None
        return scene.lost(
            "the ssh connection to the guest ended, though the guest answers on a new one",
            details=f"{why}. {_RESET}",
            hint="run fewer things beside it",
        )
