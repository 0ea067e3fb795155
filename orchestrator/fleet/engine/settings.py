"""What the head, a worker and a client of Dask have in common: settings, certificates, names, and an end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, Final

import dask
from distributed.security import Security

from orchestrator.fleet.config import Fleet, Role

Tell = Callable[[str], None]
Json = dict[str, Any]

CARD: Final = "orchestrator"
"""Under which a worker tells the head what it can."""
CONNECT_SECONDS: Final = 30.0
_KEPT_EVENTS: Final = 100


def configure(fleet: Fleet) -> None:
    """Dask's own settings, of this process."""
    dask.config.set(
        {
            "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
            "distributed.comm.timeouts.tcp": f"{fleet.text.silent:.0f}s",
            "distributed.scheduler.worker-ttl": f"{fleet.text.silent:.0f}s",
            "distributed.scheduler.work-stealing": False,
            "distributed.scheduler.active-memory-manager.start": False,
            # Each trial is a task for one host, which is given anew if it was lost: that is counted here.
            "distributed.scheduler.allowed-failures": 0,
            "distributed.admin.low-level-log-length": _KEPT_EVENTS,
            "distributed.admin.log-length": _KEPT_EVENTS,
            "distributed.worker.profile.enabled": False,
            # A worker is beside trials that are measured; Dask would wake it every 20 ms to look at a clock.
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.tick.limit": f"{fleet.text.silent:.0f}s",
            "distributed.admin.system-monitor.interval": "10s",
            "distributed.admin.system-monitor.disk": False,
        }
    )
    logging.getLogger("distributed").setLevel(logging.ERROR)


def security_of(fleet: Fleet, role: Role) -> Security:
    files = fleet.certificates(role)
    if files is None:
        return Security(require_encryption=False)
    pair: Json = {"cert": str(files.certificate), "key": str(files.key)}
    dask_role = {"head": "scheduler"}.get(role, role)
    return Security(
        require_encryption=True,
        tls_ca_file=str(files.ca),
        **{f"tls_{dask_role}_{name}": path for name, path in pair.items()},
    )


def topic_of(key: str) -> str:
    """Of what is said of a run's trials."""
    return f"orchestrator/{key.partition('/')[0]}"


def stopped() -> asyncio.Event:
    """Set by SIGINT, SIGTERM or SIGHUP."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop
