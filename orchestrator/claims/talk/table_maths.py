"""How large page tables are."""

from orchestrator.claims.arithmetic import Ratio, Times
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import GuestBytes
from orchestrator.claims.of_runs import Headline, WorkloadSize
from orchestrator.units import GIB, MIB, PAGE_BYTES

_TABLES = Headline("pmd", "linux-6.12", "guest_page_tables_total")
_SPAN = WorkloadSize("pmd", "linux-6.12", "sparse-map", "span")

TABLE_MATHS = claim(
    "table-maths",
    place=1,
    sentence="X GiB of mapped memory need 2X MiB of last-level page tables.",
    parts=(
        Part(
            "page-table pages of a guest, for each GiB that a process touched: the rest is upper levels, and "
            "other processes",
            Times(Ratio(_TABLES, _SPAN), PAGE_BYTES * GIB / MIB),
            Criterion(at_least=2.0, at_most=2.05),
            Unit.MIB_PER_GIB,
        ),
        Part(
            "last-level tables of a process that touches 50 GiB, one page in 2 MiB",
            GuestBytes("sparse", "last_level_bytes"),
            Criterion(at_least=100 * MIB, at_most=100 * MIB),
            Unit.BYTES,
        ),
    ),
    changes="Huge pages hardly do: for each one of anonymous memory the kernel keeps a table to split "
    "it by. Huge pages of files and hugetlb need none.",
)
