"""`model tlb` asked again for claims: behind the run whose huge pages it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from played import PROGRESS, Played
from reference import ROOT as REFERENCE
from retested import COMMITTED, SCENARIOS, claim_of, workplace

from orchestrator.claims import Committed, claim_named
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import TLB_RUN, TlbAfterPolicy, TlbWithoutHugePages
from orchestrator.errors import BadInputError, GuestLostError
from orchestrator.observation import Origin
from orchestrator.retest import Change, Progressed, RunJob, Workplace, changes_of, jobs_of, state_of, work
from orchestrator.retest.jobs import Job, TlbJob
from orchestrator.retest.loop import waits_for

CLAIM = claim_of(TlbWithoutHugePages("hot"), TlbAfterPolicy("hot", "empty"), unit=Unit.RATIO)


@pytest.fixture
def where(tmp_path: Path, trials: Played) -> Workplace:
    return workplace(tmp_path, trials)


def jobs(repeats: int | None = None) -> list[Job]:
    return jobs_of([CLAIM], COMMITTED, SCENARIOS, repeats=repeats, by=[CLAIM])


def test_the_run_comes_first_and_only_what_claims_read_is_asked() -> None:
    run, tlb = jobs()
    assert isinstance(run, RunJob)
    assert (run.name, run.arms) == (TLB_RUN.run, (TLB_RUN.arm,))
    assert isinstance(tlb, TlbJob)
    assert (tlb.accesses, tlb.of_trials, tlb.policies) == (("hot",), ("hot",), ("empty",))


def test_it_waits_for_the_whole_run(where: Workplace, trials: Played) -> None:
    run, tlb = jobs(repeats=2)
    assert state_of(tlb, where).progressed is Progressed.TO_DO
    assert waits_for(tlb, where) == "pmd, which has not run"
    with pytest.raises(BadInputError, match="tlb waits for pmd"):
        work(tlb, where, PROGRESS)
    trials.ends = {"linux-6.12-01": GuestLostError("gone")}
    work(run, where, PROGRESS)
    assert waits_for(tlb, where) == "pmd, of which 1 trial must still run"
    trials.ends = {}
    work(run, where, PROGRESS)
    assert waits_for(tlb, where) == ""
    assert not (where.folder / "tlb.json").exists()


@pytest.mark.slow
def test_of_the_committed_run_it_is_the_committed_answer(where: Workplace) -> None:
    _, tlb = jobs()
    shutil.copytree(REFERENCE / TLB_RUN.run, where.folder / TLB_RUN.run)
    assert work(tlb, where, PROGRESS) is None
    assert state_of(tlb, where).progressed is Progressed.DONE
    (change,) = changes_of([CLAIM], COMMITTED, Committed(where.folder, "here"))
    assert [part.change for part in change.parts] == [Change.IDENTICAL, Change.IDENTICAL]
    path = where.folder / "tlb.json"
    document = json.loads(path.read_text())
    assert document["cpus"].keys() == COMMITTED.document("tlb")["cpus"].keys()
    for trial in document["run"]["trials"]["hot"].values():
        trial["empty"]["two_levels"]["references_per_access"]["typical"] *= 1.5
    path.write_text(json.dumps(document))
    (change,) = changes_of([CLAIM], COMMITTED, Committed(where.folder, "here"))
    assert [part.change for part in change.parts] == [Change.IDENTICAL, Change.DIFFERS]


def test_an_answer_about_another_run_is_refused(tmp_path: Path) -> None:
    document = COMMITTED.document("tlb")
    other = {**document, "run": {**document["run"], "arm": "linux-7.x"}}
    (tmp_path / "tlb.json").write_text(json.dumps(other))
    with pytest.raises(BadInputError, match="of another run"):
        TlbAfterPolicy("hot", "empty").sample(Committed(tmp_path))


def test_the_claim_of_tlbs_needs_no_result_that_is_not_made_again() -> None:
    """It was 'not tested yet' by fresh results, however long they took."""
    claim = claim_named("tlb-stalls")
    asked = {job.name for job in jobs_of([claim], COMMITTED, SCENARIOS)}
    assert asked == {"pmd", "tlb"}
    modelled = [part for part in claim.parts if part.evidence.origin is Origin.MODELLED]
    assert {source.result for part in modelled for source in part.evidence.sources} == asked
