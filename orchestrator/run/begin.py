"""How a trial comes by its guest, and a saved state by its boot, on whatever host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.guest.boot import Guest
from orchestrator.guest.states import GuestSpec, ensure_state
from orchestrator.plan import TrialPlan
from orchestrator.run.host_settings import apply_host_settings
from orchestrator.run.meta import host_facts
from orchestrator.run.nested import make_nested, nested_guest, nested_spec
from orchestrator.run.start import Begin, Bootable, Lab, guest_spec
from orchestrator.store import TrialWriter


@contextmanager
def begun(
    plan: TrialPlan, lab: Lab, writer: TrialWriter, scratch: Path, now_ns: Callable[[], int]
) -> Iterator[Guest]:
    """A guest as the plan asks for it. It is ended at the end."""
    with ExitStack() as stack:
        begin = Begin(plan, lab, writer, scratch, now_ns, stack)
        if lab.nested:
            guest, host = nested_guest(begin)
            lab.learn({**host_facts(host), "host_kernel_asked": plan.host_kernel})
            yield guest
            return
        stack.enter_context(apply_host_settings(lab.host.shell, plan.host_setup))
        yield begin.warm() if starts_warm(plan, lab) else begin.cold()


def starts_warm(plan: TrialPlan, lab: Lab) -> bool:
    """Whether a trial starts from a saved state."""
    # The names of other people's domains on a libvirt that is shared would clash with that of a state.
    return plan.start == "warm" and lab.host.embedded


def state_spec(plan: TrialPlan, lab: Lab) -> GuestSpec:
    """What decides which saved state a trial starts from."""
    return nested_spec(plan, lab) if lab.nested else guest_spec(Bootable.of(plan), lab)


def save_boot(
    plan: TrialPlan, lab: Lab, writer: TrialWriter, scratch: Path, now_ns: Callable[[], int]
) -> None:
    """Have the saved state that a trial starts from in the cache; boots a guest if it is not there."""
    with ExitStack() as stack:
        begin = Begin(plan, lab, writer, scratch, now_ns, stack)
        spec = state_spec(plan, lab)
        ensure_state(
            lab.places.cache,
            spec,
            make=lambda state: make_nested(begin, state) if lab.nested else begin.make(spec, state),
        )
