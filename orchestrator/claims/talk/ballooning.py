"""Ballooning beside unmovable memory."""

from orchestrator.claims.arithmetic import Less, Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Headline

BALLOONING = claim(
    "ballooning",
    place=7,
    sentence="Ballooning fails on unmovable memory as hot-unplug does.",
    parts=(
        Part(
            "share of 256 MiB requested by which a balloon inflated in a guest of 2.5 GiB, 100 MiB of "
            "it page tables",
            Ratio(
                Headline("quickstart", "linux-6.12", "balloon_achieved_bytes"),
                Headline("quickstart", "linux-6.12", "balloon_requested_bytes"),
            ),
            Criterion(at_most=0.99),
            Unit.SHARE,
        ),
        Part(
            "by how much a balloon of 1,536 MiB falls short, as a share of what hot-unplug of as much falls "
            "short by in the same guest, of 3.5 GiB with 400 MiB of empty page tables: more is free",
            Ratio(
                Less(
                    Headline("balloon-limit", "balloon", "balloon_requested_bytes"),
                    Headline("balloon-limit", "balloon", "balloon_achieved_bytes"),
                ),
                Headline("balloon-limit", "unplug", "unplug_shortfall_bytes"),
            ),
            Criterion(at_least=0.5),
            Unit.SHARE,
        ),
    ),
    changes="A balloon takes single pages, so unmovable memory keeps its own bytes from it and "
    "nothing beside. Both requests fit what is free: one that does not would show how much that is.",
)
