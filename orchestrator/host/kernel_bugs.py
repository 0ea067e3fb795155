"""Faults of released kernels that make results wrong: which releases have them, and where that is said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Version = tuple[int, int, int]

_RELEASE = re.compile(
    r"(?P<a>[0-9]{1,3})\.(?P<b>[0-9]{1,4})(?:\.(?P<c>[0-9]{1,4}))?(?:[-~.]?(?P<rc>rc[0-9]+))?"
)


@dataclass(frozen=True)
class KernelBug:
    """A fault of upstream releases from `first` up to, not including, `fixed`.

    `option` is the configuration without which a kernel does not have it.
    """

    name: str
    first: Version
    fixed: Version
    option: str
    what: str
    source: str

    def concerns(self, release: str, config: str | None = None) -> bool:
        """Whether `uname -r` is in the range; with the kernel's configuration, whether it has the option."""
        found = _RELEASE.match(release)
        if found is None or (config is not None and f"{self.option}=y" not in config.splitlines()):
            return False
        version = int(found["a"]), int(found["b"]), int(found["c"] or 0)
        # The first release with it in its series came after some of its candidates.
        candidate = found["rc"] is not None and version == (*self.fixed[:1], self.fixed[1] + 1, 0)
        return self.first <= version < self.fixed or candidate

    def warning_for(self, release: str) -> str:
        """A warning in a sentence. Distributions fix kernels without moving them out of the range."""
        between = f"{_words(self.first)} to before {_words(self.fixed)}"
        return (
            f"Linux {release} is in the range of {self.name} ({between}), unless the distribution has "
            f"backported the fix: {self.what} ({self.source})"
        )


FAULTS: Final = (
    KernelBug(
        "CVE-2026-74674",
        first=(7, 0, 0),
        fixed=(7, 1, 9),
        option="CONFIG_PT_RECLAIM",
        what="memory may be corrupted, or faults endless, where whole PMD ranges are discarded while other "
        "threads run",
        source="direct page-table reclaim flushes the wrong address since commit 4c640eb4181c; fixed by "
        "478a1c3abebf in 7.2 and 7.1.9",
    ),
)


def known_bugs(release: str, config: str | None = None) -> list[str]:
    """A warning for each fault that a kernel may have. `config` is its .config, if it can be had."""
    return [fault.warning_for(release) for fault in FAULTS if fault.concerns(release, config)]


def _words(version: Version) -> str:
    return ".".join(map(str, version if version[2] else version[:2]))
