"""How a trial comes by its guest, on whatever host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.guest.boot import Guest
from orchestrator.plan import TrialPlan
from orchestrator.run.host_settings import apply_host_settings
from orchestrator.run.meta import host_facts
from orchestrator.run.nested import nested_guest
from orchestrator.run.start import Begin, Lab
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
        # The names of other people's domains on a libvirt that is shared would clash with that of a state.
        warm = plan.start == "warm" and lab.host.embedded
        yield begin.warm() if warm else begin.cold()
