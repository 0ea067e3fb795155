"""How a trial comes by its guest, and a saved state by its boot, on whatever host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.guest.boot import Guest
from orchestrator.guest.states import ensure_state
from orchestrator.launch.environment import GuestLaunch, TrialEnvironment
from orchestrator.plan import TrialSpec
from orchestrator.store import TrialWriter


@contextmanager
def launched_guest(
    plan: TrialSpec,
    environment: TrialEnvironment,
    writer: TrialWriter,
    scratch: Path,
    now_ns: Callable[[], int],
) -> Iterator[Guest]:
    """A guest as the plan asks for it. It is ended at the end."""
    with ExitStack() as stack:
        yield environment.starts.guest(GuestLaunch(plan, environment, writer, scratch, now_ns, stack))


def save_boot(
    plan: TrialSpec,
    environment: TrialEnvironment,
    writer: TrialWriter,
    scratch: Path,
    now_ns: Callable[[], int],
) -> None:
    """Have the saved state that a trial starts from in the cache; boots a guest if it is not there."""
    with ExitStack() as stack:
        begin = GuestLaunch(plan, environment, writer, scratch, now_ns, stack)
        ensure_state(
            environment.places.cache,
            environment.starts.spec(plan, environment),
            make=lambda state: environment.starts.make(begin, state),
        )
