"""The terms of the page: what docs/glossary.md says of them, since an installed package has no docs folder.

`tests/unit/test_report_terms.py` compares both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Term:
    """`word` and `meaning` as in the glossary, without its markup; `forms` are patterns of how a page has it,
    where that is not the word itself."""

    word: str
    meaning: str
    forms: tuple[str, ...] = ()

    def used_in(self, text: str) -> bool:
        """Whether a text has the term in one of its forms."""
        forms = "|".join(self.forms or (re.escape(self.word),))
        return re.search(rf"\b(?:{forms})\b", text, re.IGNORECASE) is not None


TERMS: Final = (
    Term(
        "page table, page-table page",
        "one page of entries, of any level; count, or bytes",
        ("page[- ]tables?",),
    ),
    Term(
        "last-level table",
        "table whose entries map base pages",
        ("last-level", "PTE"),
    ),
    Term(
        "PMD table; PUD, P4D, PGD table",
        "tables of the upper levels",
        ("PMD",),
    ),
    Term(
        "deposited table",
        "table that is kept for a huge page of anonymous memory, to split it by; nothing else may free it",
        ("deposited",),
    ),
    Term(
        "second-level page tables",
        "KVM's tables from guest-physical to host-physical addresses; bytes",
        ("second-level",),
    ),
    Term(
        "device block, block",
        'what virtio-mem plugs and unplugs as a whole; bytes. "Block" alone means this one',
        ("blocks?",),
    ),
    Term(
        "block still plugged",
        "block that is plugged after the guest was asked to unplug it; count",
        ("still plugged",),
    ),
    Term(
        "memmap",
        "the kernel's struct page of each frame, and the frames that contain them; bytes",
    ),
    Term(
        "acknowledged, settled",
        "when the size first changed, and when it last changed; seconds",
        ("acknowledged", "settled"),
    ),
    Term(
        "requested, achieved, shortfall",
        "what a step asks for, gets and lacks; bytes",
        ("shortfall",),
    ),
    Term(
        "movable, unmovable",
        "whether the kernel can migrate a frame's contents",
        ("unmovable",),
    ),
    Term(
        "pinned block",
        "block with at least one unmovable frame; count. A block is pinned by classes; memory is DMA-pinned",
        ("pinned",),
    ),
    Term(
        "sole blocker",
        "the only unmovable class in a block; count of blocks",
    ),
    Term(
        "pinned by several classes",
        "blocks with more than one unmovable class; count",
    ),
    Term(
        "pinned by memmap only",
        "blocks with nothing unmovable but memmap of other memory that is still plugged; they become "
        "free with it",
    ),
    Term(
        "attributed to a class",
        "each pinned block is counted once, under the first class in a fixed order",
        ("attributed",),
    ),
    Term(
        "no migration target",
        "movable memory with no free memory elsewhere; count of blocks",
    ),
    Term(
        "unexplained",
        "plugged, movable or free, with a migration target: nothing read explains it; count of blocks",
    ),
    Term(
        "injected class",
        "the class that a workload of the attribution check allocates",
        ("injected",),
    ),
    Term(
        "recall, precision",
        "share of an injected class's blocks that have it; share of the blocks that have it which are of"
        " trials that injected it; shares",
        ("recall", "precision"),
    ),
    Term(
        "snapshot",
        "flags of every frame and contents of every page-table page at one instant",
    ),
    Term(
        "PCP list",
        "free frames that a CPU keeps for itself; they have no buddy flag",
        ("PCP lists?",),
    ),
    Term(
        "free page reporting",
        "the guest tells the host which pageblocks are free, and QEMU discards them; bytes reported",
    ),
    Term(
        "arm",
        "one combination of what is compared",
        ("arms?",),
    ),
    Term(
        "trial",
        "one execution of one arm",
        ("trials?",),
    ),
    Term(
        "boot",
        "one boot of a guest; the unit of the statistics",
        ("boots?",),
    ),
    Term(
        "warm, cold",
        "whether a trial's guest is restored from a saved boot, or boots",
        ("warm", "cold"),
    ),
    Term(
        "interval",
        "interval of a difference or a mean",
        ("interval",),
    ),
    Term(
        "significant",
        "adjusted p below the level",
    ),
    Term(
        "detectable difference",
        "difference found in most experiments of this size; the metric's unit",
        ("detectable",),
    ),
    Term(
        "noise floor",
        "difference between two arms that are the same",
    ),
    Term(
        "paired",
        "trials of one repeat and seed, or of one saved boot",
    ),
    Term(
        "baseline",
        "figures of an earlier run, to compare later ones with",
    ),
    Term(
        "expectation",
        "bound that a scenario sets to a metric",
        ("expectations?",),
    ),
    Term(
        "measured, predicted, modelled",
        "read; computed from what was read; what a policy would have done. Every value is one of them",
        ("predicted", "modelled"),
    ),
    Term(
        "leaf entry",
        "entry that maps memory; count by size",
        ("leaf entr(?:y|ies)",),
    ),
    Term(
        "needed",
        "second-level tables that mapping what is present takes; predicted; bytes",
    ),
    Term(
        "reclaimable",
        "measured less needed; predicted; bytes",
    ),
)

_TAG: Final = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL)


def terms_in(page: str) -> list[Term]:
    """The terms that a part of a page has in its text, in the order of the glossary."""
    text = " ".join(_TAG.sub(" ", page).split())
    return [term for term in TERMS if term.used_in(text)]
