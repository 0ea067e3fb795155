"""`reclaim --policy`: a lever by a policy, until a signal ends it."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from orchestrator.cli.output import clean_text, err, out
from orchestrator.cli.signals import stop_at_signals
from orchestrator.printable import clean

if TYPE_CHECKING:
    from orchestrator.host_kinds import HostKind
    from orchestrator.reclaim.journal import Line

_WORDS = 400


def run_policy(path: Path, kind: HostKind, every: float | None, *, act: bool) -> bool:
    """Look at a host by the policy of a file, once or every so many seconds, and with `act` do what is due.

    False where the last look failed. Raises FileProblemsError, and OSError where the journal cannot be
    written.
    """
    from orchestrator.guest.cache import cache_dir
    from orchestrator.host.runtime import runtime_folder
    from orchestrator.reclaim.journal import Journal
    from orchestrator.reclaim.loop import PolicyLoop
    from orchestrator.reclaim.policy import load_policy

    policy, lever = load_policy(path)
    journal = Journal(policy.journal, _complain)
    journal.check()
    with (
        stop_at_signals("putting the host back as it was"),
        runtime_folder(Path("reclaim") / policy.lever) as runtime,
    ):
        loop = PolicyLoop(
            policy,
            lever,
            lambda: kind.connect(runtime, cache_dir()),
            journal,
            name=kind.text if kind.elsewhere else platform.node(),
            runtime=runtime,
            act=act,
            tell=_tell,
        )
        loop.remember()
        while True:
            began = time.monotonic()
            reached = loop.look()
            if every is None:
                return reached
            time.sleep(max(0.0, every - (time.monotonic() - began)))


def _complain(words: str) -> None:
    err.print(f"[yellow]journal:[/] {escape(clean(words, _WORDS))}")


def _tell(line: Line) -> None:
    """A line of the journal for people."""
    where = escape(clean_text(line.vm or line.host))
    if line.event == "notice":
        err.print(f"[yellow]{where}:[/] {escape(clean(line.reason, _WORDS))}")
        return
    what = line.outcome or "would be used"
    reason = f": {line.reason}" if line.reason else ""
    out.print(f"{where}: {escape(clean(f'{line.lever} {what}{reason}; due: {line.because}', _WORDS))}")
