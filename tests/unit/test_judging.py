"""How a claim is judged: from figures and criteria to parts, from parts to a verdict, and in which words."""

from __future__ import annotations

from collections.abc import Callable

import figures
import pytest

from orchestrator.claims import Claim, Committed, Verdict, judge
from orchestrator.claims.arithmetic import Ratio, weakest
from orchestrator.claims.base import Criterion, Part
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Figure, NoFigureError, Sample, Spread, Unit, figure_words, spread_words
from orchestrator.claims.judge import PartResult, result_of, verdict_of
from orchestrator.claims.of_models import OvercommitFigure
from orchestrator.claims.of_runs import AtMoment, AtSnapshot, Compared, Headline
from orchestrator.observation import Origin

COMMITTED = Committed(figures.ROOT / "results" / "reference")


@pytest.mark.parametrize(
    ("low", "high", "criterion", "result"),
    [
        (2.0, 3.0, Criterion(at_least=2.0), PartResult.MET),
        (1.9, 3.0, Criterion(at_least=2.0), PartResult.UNDECIDED),
        (1.0, 1.9, Criterion(at_least=2.0), PartResult.NOT_MET),
        (1.0, 2.0, Criterion(at_most=2.0), PartResult.MET),
        (2.1, 3.0, Criterion(at_most=2.0), PartResult.NOT_MET),
        (0.0, 9.0, Criterion(at_least=2.0, at_most=3.0), PartResult.UNDECIDED),
        (None, None, Criterion(at_least=2.0), PartResult.UNDECIDED),
    ],
)
def test_all_of_the_interval_decides(
    low: float | None, high: float | None, criterion: Criterion, result: PartResult
) -> None:
    assert result_of(Figure(2.5, low, high, Spread.INTERVAL, 5), criterion) is result


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ("met met", Verdict.HOLDS),
        ("met not-met", Verdict.IN_PART),
        ("met undecided", Verdict.IN_PART),
        ("met not-tested", Verdict.IN_PART),
        ("met cannot", Verdict.IN_PART),
        ("not-met not-met", Verdict.DOES_NOT),
        ("not-met not-tested", Verdict.UNDECIDED),
        ("not-met cannot", Verdict.UNDECIDED),
        ("not-met undecided", Verdict.UNDECIDED),
        ("undecided", Verdict.UNDECIDED),
        ("not-tested cannot", Verdict.NOT_TESTED),
        ("not-tested", Verdict.NOT_TESTED),
        ("cannot cannot", Verdict.CANNOT),
    ],
)
def test_a_verdict_says_no_more_than_its_parts(parts: str, verdict: Verdict) -> None:
    named = {one.name.lower().replace("_", "-"): one for one in PartResult}
    assert verdict_of(named[word] for word in parts.split()) is verdict


def test_origins_are_judged_each_by_itself() -> None:
    claim = Claim(
        "made-up",
        1,
        "Tables are large.",
        (
            Part("measured", Untestable("no machine is so large")),
            Part(
                "modelled",
                OvercommitFigure("sparse", "none", "drop", "killed"),
                Criterion(at_least=3),
            ),
        ),
        "Nothing.",
    )
    found = judge(claim, COMMITTED)
    assert found.verdicts == {Origin.MEASURED: Verdict.CANNOT, Origin.MODELLED: Verdict.HOLDS}
    assert weakest(Origin.MEASURED, Origin.PREDICTED) is Origin.PREDICTED
    assert weakest(Origin.MODELLED, Origin.MEASURED) is Origin.MODELLED


def test_a_ratio_is_of_one_boot_and_of_ranges_the_widest() -> None:
    kills = [OvercommitFigure("dense", policy, "drop", "killed") for policy in ("empty", "none")]
    found = Ratio(kills[0], kills[1]).figure(COMMITTED)
    assert (found.low, found.estimate, found.high, found.spread) == (0.5, 1.0, 2.0, Spread.COSTS)
    one = Sample({"a": 1.0, "b": 2.0}, of_boots=True)
    two = Sample({"b": 4.0, "c": 5.0}, of_boots=True)
    assert one.combined(two, lambda a, b: a / b).values == {"b": 0.5}
    with pytest.raises(NoFigureError, match="not of the same boots"):
        one.combined(Sample({"low": 1.0}, of_boots=False), max)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Headline("pmd", "linux-6.12", "guest_page_table_byte_end"),
        lambda: Compared("pmd", "linux-6.12", "linux-7.x", "unplugged"),
        lambda: AtSnapshot("pmd", "linux-6.12", "unplugged", "blocks_held"),
        lambda: AtMoment("second-level", "balloon", "emptied", "reclaimable_bytes"),
        Criterion,
    ],
)
def test_a_slip_is_found_when_a_claim_is_made(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"no metric|no column|without a bound"):
        make()


@pytest.mark.parametrize(
    ("column", "origin"), [("second_level_bytes", Origin.MEASURED), ("needed_bytes", Origin.PREDICTED)]
)
def test_a_reading_at_a_moment_is_of_the_origin_of_its_series(column: str, origin: Origin) -> None:
    evidence = AtMoment("second-level", "balloon", "emptied", column)
    assert evidence.origin is origin
    assert min(evidence.sample(COMMITTED).values.values()) > 0


def test_a_difference_is_that_of_compare() -> None:
    found = Compared("quickstart", "linux-6.12", "linux-7.x", "unplug_achieved_bytes").figure(COMMITTED)
    pair = COMMITTED.run("quickstart").compared("linux-6.12").pairs[0].metrics["unplug_achieved_bytes"]
    assert pair.interval
    assert (found.estimate, found.low, found.high) == (pair.estimate, pair.interval.low, pair.interval.high)


@pytest.mark.parametrize(
    ("figure", "unit", "words"),
    [
        (Figure(0.5, 0.25, 0.75, Spread.INTERVAL, 5), Unit.SHARE, "50.0 [25.0, 75.0] %"),
        (Figure(2**20, 2**10, 2**21, Spread.BOOTS, 3), Unit.BYTES, "1 MiB [1 KiB, 2 MiB]"),
        (Figure(2.0, 2.0, 2.0, Spread.EXACT), Unit.MIB_PER_GIB, "2.00 MiB per GiB"),
        (Figure(-0.001, None, None, Spread.NONE, 3), Unit.COUNT, "0.0"),
    ],
)
def test_a_figure_in_words(figure: Figure, unit: Unit, words: str) -> None:
    assert figure_words(figure, unit) == words


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (Figure(1, 0, 2, Spread.INTERVAL, 5), "95 % interval over 5 boots"),
        (Figure(1, 0, 2, Spread.BOOTS, 1), "range over 1 boot, too few for an interval"),
        (Figure(1, 1, 1, Spread.BOOTS, 3), "each of 3 boots"),
        (Figure(1, None, None, Spread.NONE, 4), "no interval over 4 boots, too few for an interval"),
        (Figure(1, 0, 2, Spread.COSTS), "range over seeds and costs"),
    ],
)
def test_what_the_ends_of_a_figure_are(figure: Figure, words: str) -> None:
    assert spread_words(figure) == words


@pytest.mark.parametrize(
    ("criterion", "unit", "words"),
    [
        (Criterion(at_least=0.5), Unit.SHARE, "at least 50 %"),
        (Criterion(at_most=100), Unit.COUNT, "at most 100"),
        (Criterion(at_least=2.0, at_most=2.05), Unit.RATIO, "at least 2, at most 2.05"),
        (Criterion(at_least=1024, at_most=1024), Unit.BYTES, "exactly 1 KiB"),
    ],
)
def test_a_criterion_in_words(criterion: Criterion, unit: Unit, words: str) -> None:
    assert criterion.words(unit) == words
