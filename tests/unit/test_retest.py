"""Claims tested again: what is run, that it is resumed however it ended, and what counts as a difference."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from played import PROGRESS, Played, places
from reference import ROOT as REFERENCE

from orchestrator.claims import Claim, Committed, claim_named, every_claim
from orchestrator.claims.base import Criterion, Part
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import GuestBytes, OvercommitFigure
from orchestrator.claims.of_runs import Compared, Headline
from orchestrator.cli import main
from orchestrator.cli.scenario import open_scenario
from orchestrator.errors import (
    BadInputError,
    BootTimeoutError,
    GuestLostError,
    GuestPanicError,
    InfrastructureError,
)
from orchestrator.retest import Change, Progressed, RunJob, Workplace, changes_of, jobs_of, state_of, work
from orchestrator.retest import jobs as jobs_module
from orchestrator.retest.document import changes_as_json, untestable
from orchestrator.retest.jobs import GuestsJob, OvercommitJob
from orchestrator.retest.models import overcommit_document
from orchestrator.run import machinery as machinery_module
from orchestrator.store import open_run

SCENARIOS = REFERENCE.parents[1] / "scenarios"
COMMITTED = Committed(REFERENCE)
TABLES = "guest_page_table_bytes_peak"


def a_claim(*parts: Part) -> Claim:
    return Claim("x", 1, "It does.", parts, "Nothing.")


def of(evidence: object) -> Claim:
    return a_claim(Part("what", evidence, Criterion(at_least=0), Unit.BYTES))  # type: ignore[arg-type]


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
        of(OvercommitFigure("idle", "none", "", "killed")),
        of(GuestBytes("sparse", "freed_bytes.empty")),
    ]
    guests, overcommit = jobs_of(claims, COMMITTED, SCENARIOS, by=claims)
    assert isinstance(guests, GuestsJob)
    assert guests.figures == (("sparse", "freed_bytes.empty"),)
    assert isinstance(overcommit, OvercommitJob)
    assert overcommit.answers == (("none", ""),)
    assert overcommit.scenario == SCENARIOS / "overcommit" / "idle.yaml"


def test_what_nothing_here_can_test_is_said_with_its_reason() -> None:
    rows = untestable([*every_claim(), of(Untestable("no kernel does"))])
    assert {"claim": "x", "what": "what", "reason": "no kernel does"} in rows
    assert "tlb-stalls" in {row["claim"] for row in rows}


# Going on


@pytest.fixture
def where(tmp_path: Path, trials: Played) -> Workplace:
    return Workplace(
        tmp_path / "claims", places(tmp_path), trials, lambda path: open_scenario(path, to_run=True)
    )


def pmd(repeats: int = 2) -> RunJob:
    claim = of(Compared("pmd", "linux-6.12", "linux-7.x", TABLES))
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
    claim = of(GuestBytes("sparse", "freed_bytes.empty"))
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
    claim = of(OvercommitFigure("idle", "none", "", "killed"))
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


# What counts as a difference


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., Committed]:
    """The committed pmd as if it were fresh, its summary.csv changed."""

    def make(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows) -> Committed:
        folder = tmp_path / "fresh" / "pmd"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(REFERENCE / "pmd", folder)
        rows = pd.read_csv(folder / "summary.csv")
        change(rows).to_csv(folder / "summary.csv", index=False)
        return Committed(tmp_path / "fresh", "fresh")

    return make


HELD = of(Headline("pmd", "linux-6.12", TABLES))
BOTH = of(Compared("pmd", "linux-6.12", "linux-7.x", TABLES))


def more(rows: pd.DataFrame, share: float, arm: str = "linux-6.12") -> pd.DataFrame:
    """Each boot of an arm has that much more; boots are shuffled, so that none is what it was."""
    rows = rows.copy()
    rows[TABLES] = rows[TABLES].astype(float)
    of_arm = rows["arm"] == arm
    values = rows.loc[of_arm, TABLES].to_numpy()
    rows.loc[of_arm, TABLES] = [*values[1:], values[0]] * pd.Series([1 + share] * len(values)).to_numpy()
    return rows


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, Change.NOT_DIFFERENT), (0.01, Change.DIFFERS), (-0.01, Change.DIFFERS)],
)
def test_a_planted_hundredth_is_found_and_other_boots_of_the_same_are_not(
    fresh: Callable[..., Committed], share: float, expected: Change
) -> None:
    for claim in (HELD, BOTH):
        (change,) = changes_of([claim], COMMITTED, fresh(lambda rows: more(rows, share)))
        assert change.parts[0].change is expected
        assert change.differs == (expected is Change.DIFFERS)
        readings = dict(change.parts[0].readings)
        assert list(readings) == ([""] if claim is HELD else ["linux-6.12", "linux-7.x"])
        found = next(iter(readings.values()))
        assert found.relative == pytest.approx(share, abs=1e-4)
        document = changes_as_json([change])[0]["parts"][0]
        assert document["change"] == expected.value
        assert document["readings"][0]["estimate"] == found.estimate


def test_the_same_again_is_identical(fresh: Callable[..., Committed]) -> None:
    (change,) = changes_of([HELD], COMMITTED, fresh())
    assert change.parts[0].change is Change.IDENTICAL
    assert change.committed.verdicts == change.fresh.verdicts


def test_of_few_boots_nothing_is_said(fresh: Callable[..., Committed]) -> None:
    few = fresh(lambda rows: more(rows, 0.5)[lambda all_rows: all_rows["repeat"] <= 3])
    (change,) = changes_of([HELD], COMMITTED, few)
    assert change.parts[0].change is Change.TOO_FEW_BOOTS
    assert not change.differs
    assert change.parts[0].fresh.figure
    assert change.parts[0].fresh.figure.boots == 3


def test_another_kernel_is_said(fresh: Callable[..., Committed]) -> None:
    other = fresh(lambda rows: rows.assign(kernel_release=rows["kernel_release"] + "-other"))
    (change,) = changes_of([HELD], COMMITTED, other)
    assert any("kernel of linux-6.12" in words and "-other" in words for words in change.unlike)
    assert not changes_of([HELD], COMMITTED, fresh())[0].unlike


def test_what_was_not_run_or_not_committed_is_no_difference(
    tmp_path: Path, fresh: Callable[..., Committed]
) -> None:
    (tmp_path / "none").mkdir()
    (change,) = changes_of([HELD], COMMITTED, Committed(tmp_path / "none", "none"))
    assert change.parts[0].change is Change.NOT_RUN
    assert change.parts[0].reason == "no fresh result in none/pmd"
    (change,) = changes_of([HELD], Committed(tmp_path / "none"), fresh())
    assert change.parts[0].change is Change.NOT_COMMITTED
    (change,) = changes_of([claim_named("tlb-stalls")], COMMITTED, fresh())
    assert change.parts[0].change is Change.CANNOT


# The command


@pytest.fixture
def called(
    tmp_path: Path, trials: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`claims` on played trials: exit code, output, progress."""
    monkeypatch.setattr(machinery_module, "RealMachinery", lambda: trials)
    monkeypatch.setattr(jobs_module, "REPEATS", {"pmd": 1, "online-policy": 1})

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["claims", "unplug-page-tables", *words, "--results", str(tmp_path)])
        printed = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, printed.out, printed.err

    return call


def test_a_dry_run_lists_what_would_run(
    called: Callable[..., tuple[int, str, str]], trials: Played, tmp_path: Path
) -> None:
    code, said, _ = called("--dry-run", "--json")
    document = json.loads(said)
    assert code == 0
    assert document["format"] == "orchestrator.claims.run/1"
    assert document["dry_run"]
    assert [(job["name"], job["state"], job["left"]) for job in document["jobs"]] == [
        ("online-policy", "to do", 2),
        ("pmd", "to do", 2),
    ]
    assert document["estimate_seconds"] == pytest.approx(
        sum(job["estimate_seconds"] for job in document["jobs"])
    )
    command = "orchestrator run scenarios/pmd.yaml --arm linux-6.12 --arm linux-7.x --repeats 1"
    assert document["jobs"][1]["command"] == command
    assert document["claims"] == []
    assert trials.ran == []
    assert list(tmp_path.iterdir()) == []
    code, said, _ = called("--dry-run")
    assert "scenarios/pmd.yaml" in said


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_interrupted_or_failed(
    called: Callable[..., tuple[int, str, str]], trials: Played, tmp_path: Path
) -> None:
    trials.ends = {
        "linux-6.12-movable-01": InfrastructureError("a disk is full"),
        "linux-7.x-01": KeyboardInterrupt(),
    }
    code, _, said = called("--run")
    assert code == 130
    assert f"orchestrator claims unplug-page-tables --run --results {tmp_path}   goes on" in said
    assert "a disk is full" in said
    done = set(trials.ran) - set(trials.ends)
    trials.ran = []
    trials.ends = {"linux-6.12-movable-01": InfrastructureError("a disk is full")}
    code, said, _ = called("--run", "--json")
    document = json.loads(said)
    assert code == document["exit_code"] == 3, "one failed, and the other was run all the same"
    assert not done & set(trials.ran)
    assert {job["name"]: (job["state"], job["left"]) for job in document["jobs"]} == {
        "online-policy": ("begun", 1),
        "pmd": ("done", 0),
    }
    assert "a disk is full" in next(job["error"] for job in document["jobs"] if job["left"])
    trials.ran, trials.ends = [], {}
    code, said, _ = called("--run")
    assert (code, trials.ran) == (0, ["linux-6.12-movable-01"])
    assert "no fresh result" in said, "played trials have no figures"
    trials.ran = []
    assert called("--run")[0] == 0
    assert trials.ran == []


def test_nothing_is_begun_that_would_take_too_long(
    called: Callable[..., tuple[int, str, str]], trials: Played
) -> None:
    code, _, said = called("--run", "--within", "1s")
    assert (code, trials.ran) == (0, [])
    assert "pmd is left for the next call" in said


def test_repeats_are_for_a_run(called: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = called("--repeats", "2")
    assert code == 2
    assert "--run" in said


_STUB = """\
#!/bin/sh
echo "$@" >> {folder}/called
echo '{{"error": "{error}"}}'
exit {code}
"""


@pytest.mark.slow
def test_each_run_has_a_process_of_its_own_where_it_takes_one(
    called: Callable[..., tuple[int, str, str]],
    trials: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libvirt's embedded driver has one root for as long as its process lives."""
    monkeypatch.setattr(type(trials), "one_run_a_process", True)
    stub = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(stub))
    for code, error in ((3, "a disk is full"), (0, "")):
        stub.write_text(_STUB.format(folder=tmp_path, code=code, error=error))
        stub.chmod(0o755)
        ended, said, _ = called("--run", "--json", "--repeats", "2")
        assert (ended, trials.ran) == (code, [])
        assert [job["error"] for job in json.loads(said)["jobs"]] == [error, error]
    calls = (tmp_path / "called").read_text().splitlines()
    assert [call.rpartition(" ")[2] for call in calls] == ["online-policy", "pmd"] * 2
    head = f"-m orchestrator claims unplug-page-tables --run --results {tmp_path} "
    assert all(call.startswith(head) and " --repeats 2 " in call for call in calls), calls


@pytest.mark.slow
def test_such_a_process_makes_one_result_and_says_what_went_wrong(
    called: Callable[..., tuple[int, str, str]], trials: Played
) -> None:
    trials.ends = {"linux-6.12-01": InfrastructureError("a disk is full")}
    code, said, _ = called("--run", "--one", "pmd")
    assert (code, json.loads(said)) == (3, {"error": "pmd: trial linux-6.12-01: a disk is full"})
    assert set(trials.ran) == {"linux-6.12-01", "linux-7.x-01"}
