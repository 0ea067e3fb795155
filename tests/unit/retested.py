"""Claims to test again, by the committed results, and where it is done with played trials."""

from __future__ import annotations

from pathlib import Path

from played import Played, places
from reference import ROOT as REFERENCE

from orchestrator.claims import Claim, Committed
from orchestrator.claims.base import Criterion, Part
from orchestrator.claims.evidence import Evidence
from orchestrator.claims.figure import Unit
from orchestrator.cli.scenario import open_scenario
from orchestrator.retest import Workplace

SCENARIOS = REFERENCE.parents[1] / "scenarios"
COMMITTED = Committed(REFERENCE)
TABLES = "guest_page_table_bytes_peak"


def claim_of(*evidence: Evidence, unit: Unit = Unit.BYTES) -> Claim:
    """A claim with a part for each; differences count from one `unit` on."""
    parts = (Part("what", one, Criterion(at_least=0), unit) for one in evidence)
    return Claim("x", 1, "It does.", tuple(parts), "Nothing.")


def workplace(folder: Path, trials: Played) -> Workplace:
    """Its results are in the folder `claims` of that one."""
    return Workplace(folder / "claims", places(folder), trials, lambda path: open_scenario(path, to_run=True))
