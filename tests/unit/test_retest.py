"""Claims tested again: what is run, and that it is resumed however it ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from played import PROGRESS, Played, places
from retested import COMMITTED, SCENARIOS, TABLES, claim_of, workplace

from orchestrator.claims import Committed, claim_named, every_claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.of_models import GuestBytes, OvercommitFigure
from orchestrator.claims.of_runs import Compared
from orchestrator.cli.scenario import open_scenario
from orchestrator.errors import (
    BadInputError,
    BootTimeoutError,
    GuestLostError,
    GuestPanicError,
)
from orchestrator.retest import Change, Progressed, RunJob, Workplace, changes_of, jobs_of, state_of, work
from orchestrator.retest.document import untestable
from orchestrator.retest.jobs import GuestsJob, OvercommitJob
from orchestrator.retest.models import overcommit_document
from orchestrator.store import open_run

# What is run


@pytest.mark.slow
def test_every_result_that_claims_are_judged_by_is_made_again() -> None:
    jobs = {job.name: job for job in jobs_of(every_claim(), COMMITTED, SCENARIOS)}
    sources = {source for claim in every_claim() for part in claim.parts for source in part.evidence.sources}
    assert {source.result for source in sources} == set(jobs)
    for source in sources:
        job = jobs[source.result]
        assert source.arm in (job.arms if isinstance(job, RunJob) else [""])
        if isinstance(job, RunJob):
            assert job.scenario.is_file()
    assert all(claim_named(name) for job in jobs.values() for name in job.claims)


def test_all_that_is_known_to_take_long_fits_two_hours() -> None:
    jobs = jobs_of(every_claim(), COMMITTED, SCENARIOS)
    known = [job for job in jobs if job.seconds is not None]
    assert {job.name for job in known} >= {"pmd", "quickstart", "costs", "reclaim", "second-level"}
    assert sum(job.seconds or 0 for job in known) <= 2 * 3600, "declare fewer REPEATS of what takes longest"
    assert [job.seconds for job in known] == sorted(job.seconds or 0 for job in known)


def test_a_run_is_the_same_for_each_claim_that_it_tests() -> None:
    """Else what one claim has begun could not be continued by the others."""
    whole = {job.name: job for job in jobs_of(every_claim(), COMMITTED, SCENARIOS)}
    for claim in every_claim():
        assert all(whole[job.name] == job for job in jobs_of([claim], COMMITTED, SCENARIOS))


def test_an_estimate_is_of_the_trials_and_boots_of_the_committed_run() -> None:
    (job,) = jobs_of([claim_named("no-overhead")], COMMITTED, SCENARIOS)
    assert isinstance(job, RunJob)
    assert job.repeats == COMMITTED.run("costs").run.plan.repeats
    assert job.seconds == pytest.approx(861, abs=1), "the same again takes as long as before"
    (half,) = jobs_of([claim_named("no-overhead")], COMMITTED, SCENARIOS, repeats=1)
    assert half.seconds == pytest.approx(861 / 5, abs=1)


def test_answers_and_guests_are_asked_for_by_what_claims_read() -> None:
    claims = [
        claim_of(OvercommitFigure("idle", "none", "", "killed")),
        claim_of(GuestBytes("sparse", "freed_bytes.empty")),
    ]
    guests, overcommit = jobs_of(claims, COMMITTED, SCENARIOS, by=claims)
    assert isinstance(guests, GuestsJob)
    assert guests.figures == (("sparse", "freed_bytes.empty"),)
    assert isinstance(overcommit, OvercommitJob)
    assert overcommit.answers == (("none", ""),)
    assert overcommit.scenario == SCENARIOS / "overcommit" / "idle.yaml"


def test_what_nothing_here_can_test_is_said_with_its_reason() -> None:
    rows = untestable([*every_claim(), claim_of(Untestable("no kernel does"))])
    assert {"claim": "x", "what": "what", "reason": "no kernel does"} in rows
    assert "tlb-stalls" in {row["claim"] for row in rows}


# Going on


@pytest.fixture
def where(tmp_path: Path, trials: Played) -> Workplace:
    return workplace(tmp_path, trials)


def pmd(repeats: int = 2) -> RunJob:
    claim = claim_of(Compared("pmd", "linux-6.12", "linux-7.x", TABLES))
    (job,) = jobs_of([claim], COMMITTED, SCENARIOS, repeats=repeats, by=[claim])
    assert isinstance(job, RunJob)
    return job


def test_what_an_interrupted_run_has_finished_is_not_repeated(where: Workplace, trials: Played) -> None:
    job = pmd()
    assert state_of(job, where).progressed is Progressed.TO_DO
    assert not where.folder.exists(), "looking starts nothing"
    trials.ends = {"linux-7.x-02": KeyboardInterrupt(), "linux-6.12-02": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        work(job, where, PROGRESS)
    done = trials.ran[:-1]
    state = state_of(job, where)
    assert (state.progressed, state.left, state.of) == (Progressed.IN_PART, 2, 4)
    assert state.seconds == pytest.approx((job.seconds or 0) / 2)
    trials.ends, trials.ran = {}, []
    work(job, where, PROGRESS)
    assert trials.ran == [one.id for one in open_run(where.folder / "pmd").planned if one.id not in done]
    assert state_of(job, where).progressed is Progressed.DONE
    trials.ran = []
    with pytest.raises(BadInputError, match="is whole"):
        work(job, where, PROGRESS)
    assert trials.ran == []


def test_a_run_that_was_killed_goes_on(where: Workplace, trials: Played) -> None:
    job = pmd()
    trials.ends = {"linux-7.x-02": KeyboardInterrupt(), "linux-6.12-02": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        work(job, where, PROGRESS)
    path = where.folder / "pmd" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["exit_code"], meta["finished_at"]
    meta["writer"]["started_ticks"] = 1  # of no process that there is
    path.write_text(json.dumps({**meta, "status": "running"}))
    (torn,) = {trials.ran[-1]}
    (where.folder / "pmd" / "trials" / torn / "events.jsonl").write_bytes(
        b'{"event": "trial.begin", "t_ns": 0'
    )
    assert open_run(where.folder / "pmd").status == "killed"
    assert state_of(job, where).progressed is Progressed.IN_PART
    trials.ends, trials.ran = {}, []
    work(job, where, PROGRESS)
    assert torn in trials.ran
    assert state_of(job, where).progressed is Progressed.DONE


def test_a_lost_trial_is_repeated_and_a_panic_is_a_result(where: Workplace, trials: Played) -> None:
    job = pmd()
    trials.ends = {
        "linux-7.x-01": GuestLostError("gone"),
        "linux-6.12-01": GuestPanicError("it did"),
        "linux-6.12-02": BootTimeoutError("too slow"),
    }
    assert work(job, where, PROGRESS)
    assert state_of(job, where).left == 2
    trials.ends, trials.ran = {}, []
    work(job, where, PROGRESS)
    assert sorted(trials.ran) == ["linux-6.12-02", "linux-7.x-01"]
    assert state_of(job, where).progressed is Progressed.DONE


def test_what_was_planned_otherwise_is_refused_and_kept(where: Workplace, trials: Played) -> None:
    work(pmd(), where, PROGRESS)
    trials.ran = []
    for look in (lambda: state_of(pmd(3), where), lambda: work(pmd(3), where, PROGRESS)):
        with pytest.raises(BadInputError, match="planned otherwise"):
            look()
    assert trials.ran == []


def test_what_does_not_fit_this_machine_is_said(tmp_path: Path, trials: Played) -> None:
    small = Workplace(
        tmp_path / "claims",
        places(tmp_path),
        trials,
        lambda path: open_scenario(path, to_run=True, available_bytes=1 << 30),
    )
    state = state_of(pmd(), small)
    assert (state.progressed, state.left) == (Progressed.CANNOT, 0)
    assert "GiB" in state.reason


def test_a_document_of_a_model_is_written_once(
    where: Workplace, monkeypatch: pytest.MonkeyPatch, trials: Played
) -> None:
    claim = claim_of(GuestBytes("sparse", "freed_bytes.empty"))
    (job,) = jobs_of([claim], COMMITTED, SCENARIOS, by=[claim])
    assert work(job, where, PROGRESS) is None
    assert state_of(job, where).progressed is Progressed.DONE
    fresh = Committed(where.folder, "here")
    (change,) = changes_of([claim], COMMITTED, fresh)
    assert change.parts[0].change is Change.IDENTICAL
    path = where.folder / "guests.json"
    document = json.loads(path.read_text())
    document["sparse"]["freed_bytes"]["empty"] += 4096
    path.write_text(json.dumps(document))
    (change,) = changes_of([claim], COMMITTED, Committed(where.folder, "here"))
    assert change.parts[0].change is Change.DIFFERS, "a model has no chance"


@pytest.mark.slow
def test_an_answer_about_overcommit_is_written_and_is_the_committed_one(where: Workplace) -> None:
    claim = claim_of(OvercommitFigure("idle", "none", "", "killed"))
    (job,) = jobs_of([claim], COMMITTED, SCENARIOS, by=[claim])
    assert work(job, where, PROGRESS) is None
    assert state_of(job, where).progressed is Progressed.DONE
    (change,) = changes_of([claim], COMMITTED, Committed(where.folder, "here"))
    assert change.parts[0].change is Change.IDENTICAL
    path = where.folder / "overcommit" / "idle.json"
    (fresh,) = json.loads(path.read_text())["answers"]
    assert fresh in COMMITTED.document("overcommit/idle")["answers"]


def test_a_model_is_asked_for_what_claims_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.retest import models

    asked: list[tuple[list[tuple[str, str]], int]] = []

    def answers(_: object, choices: list[tuple[str, str]], __: object, *, seeds: int) -> list[object]:
        asked.append((choices, seeds))
        return []

    monkeypatch.setattr(models, "answers", answers)
    document = overcommit_document(
        SCENARIOS / "overcommit" / "idle.yaml", [("none", ""), ("empty", "swap"), ("pressure_random", "swap")]
    )
    committed = COMMITTED.document("overcommit/idle")
    ((choices, seeds),) = asked
    assert seeds == committed["asked"]["seeds"]
    assert [(policy, str(action)) for policy, action in choices] == [
        (one["policy"], one["action"])
        for one in committed["answers"]
        if one["policy"] in {"none", "empty", "pressure_random"}
        and (one["policy"] == "none" or one["action"] == "swap")
    ]
    assert document["asked"] == committed["asked"]
