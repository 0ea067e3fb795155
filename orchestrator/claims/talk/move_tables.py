"""Under pressure: tables in use."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Unit
from orchestrator.claims.shares import killed


def _kills(what: str, action: str) -> Part:
    return Part(
        f"guests killed with tables in use {what}, as a share of those killed without, in sparse.yaml",
        killed("sparse", "pressure_random", action),
        Criterion(at_most=0.5),
        Unit.SHARE,
    )


MOVE_TABLES = claim(
    "move-tables",
    place=16,
    sentence="Tables in use can be migrated to another NUMA node, compressed or swapped out, which "
    "makes room.",
    parts=(
        Part(
            "kernel that does it",
            Untestable("no released kernel migrates, compresses or swaps page tables"),
        ),
        _kills("migrated", "migrate"),
        _kills("compressed", "compress"),
        _kills("swapped out", "swap"),
    ),
    changes="The share of tables in the data: a sixth in sparse.yaml, a thousandth in dense.yaml, "
    "where it saves no guest. Costs of migration and swap are estimates.",
)
