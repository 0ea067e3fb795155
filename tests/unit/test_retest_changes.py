"""Claims by fresh results: what counts as a difference from committed ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from reference import ROOT as REFERENCE
from retested import COMMITTED, TABLES, claim_of

from orchestrator.claims import Committed, claim_named
from orchestrator.claims.of_runs import Compared, Headline
from orchestrator.retest import Change, changes_of
from orchestrator.retest.document import changes_as_json


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


HELD = claim_of(Headline("pmd", "linux-6.12", TABLES))
BOTH = claim_of(Compared("pmd", "linux-6.12", "linux-7.x", TABLES))


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
