"""The microbenchmark."""

from orchestrator.claims.arithmetic import Less, Times
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import GuestBytes
from orchestrator.claims.of_runs import Compared, Headline
from orchestrator.units import KIB, MIB, PAGE_BYTES

_HUNDRED_KIB = Criterion(at_most=100 * KIB)


def _left(policy: str) -> Less:
    return Less(GuestBytes("sparse", "table_bytes"), GuestBytes("sparse", f"freed_bytes.{policy}"))


UNREFERENCED_TABLES = claim(
    "unreferenced-tables",
    place=10,
    sentence="Freeing unreferenced tables on madvise() takes 100 MiB of page tables to 100 KiB.",
    parts=(
        Part(
            "page tables of a guest that touched 50 GiB and discarded it, on a kernel that keeps them",
            Headline("quickstart", "linux-6.12", "guest_page_table_bytes_end"),
            Criterion(at_least=100 * MIB),
            Unit.BYTES,
        ),
        Part(
            "its difference on a kernel that frees last-level tables (CONFIG_PT_RECLAIM)",
            Compared("quickstart", "linux-6.12", "linux-7.x", "guest_page_table_bytes_end"),
            Criterion(at_most=-99 * MIB),
            Unit.BYTES,
        ),
        Part(
            "empty page tables that are left there, those of upper levels and other processes among them",
            Times(Headline("quickstart", "linux-7.x", "guest_page_tables_empty"), PAGE_BYTES),
            _HUNDRED_KIB,
            Unit.BYTES,
        ),
        Part(
            "left of such a process without empty last-level tables",
            _left("empty"),
            _HUNDRED_KIB,
            Unit.BYTES,
        ),
        Part(
            "left of it without empty tables of all levels",
            _left("empty_all_levels"),
            _HUNDRED_KIB,
            Unit.BYTES,
        ),
    ),
    changes="A kernel that frees PMD tables as well: the last-level tables go, and the tables above "
    "them are more than 100 KiB.",
)
