"""Costs: ranges that ascend, prices that add up, and files that are refused in words."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.instruction_costs import instruction_costs
from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.model.cost import NOT_COUNTED, SHIPPED, Cost, CostRange, CostTable, CostUnit
from orchestrator.model.counts import ReplayCounts
from orchestrator.store import open_run
from orchestrator.store.costs_file import AssumedRate, CostsFile, Measured, read_costs, write_costs

MEASURED = Path(__file__).parents[2] / "results" / "reference" / "tables" / "costs.json"
COUNTS = ReplayCounts(touches=1000, hits=900, cold_misses=50, swapped_in=50, swapped_out=80)


@pytest.mark.parametrize(
    "ends", [(2, 1, 3), (-1, 0, 1), (0, math.nan, 1), (0, 1, math.inf), (math.nan, 1, 2)], ids=str
)
def test_a_range_ascends_from_nought(ends: tuple[float, float, float]) -> None:
    with pytest.raises(BadInputError, match="range"):
        CostRange(*ends)


def test_every_cost_has_a_unit_a_range_and_a_source() -> None:
    assert len({cost.name for cost in SHIPPED}) == len(SHIPPED)
    for cost in SHIPPED:
        assert cost.source
        assert cost.what
        assert (cost.unit is CostUnit.SECONDS) == cost.name.endswith("_seconds")


def test_what_was_measured_here_lies_in_the_shipped_ranges() -> None:
    table = CostTable.shipped()
    for name, cost in read_costs(MEASURED).as_costs().items():
        assert table[name].low <= cost.value.typical <= table[name].high, name


def test_sources_that_say_measured_have_what_was_measured() -> None:
    found, sources = read_costs(MEASURED), {cost.name: cost.source for cost in SHIPPED}
    (zstd,) = re.findall(r"compress ([\d.]+) us", found.conditions["zstd"])[:1]
    lz4 = found.as_costs()["compress_seconds"].value.typical
    assert f"lz4 {lz4 * 1e6:.1f} us, zstd {float(zstd):.0f} us" in sources["compress_seconds"]
    assert found.conditions["cpu"] in sources["compress_seconds"]
    tables = found.conditions["tables"].partition(" ")[0]
    assert f"of {tables} tables of 6.12 guests" in sources["compressed_ratio"]


def test_swapping_costs_what_its_events_do() -> None:
    table = CostTable.shipped()
    added = table.added(COUNTS)
    expected = 50 * table["swap_in_seconds"].typical + 80 * table["swap_out_seconds"].typical
    assert added.total.typical == pytest.approx(expected)
    assert added.mean.typical == pytest.approx(expected / 1000)
    assert added.p50 == CostRange.exactly(0)  # nine of ten touches met their table
    # One in twenty waits for the disk, and for its share of making room.
    share = 80 / 100 * table["swap_out_seconds"].typical
    assert added.p99.typical == pytest.approx(table["swap_in_seconds"].typical + share)


def test_no_touch_costs_nothing() -> None:
    added = CostTable.shipped().added(ReplayCounts())
    assert added.total == added.p99 == CostRange.exactly(0)


@given(
    counts=st.builds(
        ReplayCounts,
        touches=st.just(10**6),
        hits=st.integers(0, 10**5),
        cold_misses=st.integers(0, 10**5),
        rebuilt=st.integers(0, 10**5),
        decompressed=st.integers(0, 10**5),
        swapped_in=st.integers(0, 10**5),
        freed=st.integers(0, 10**5),
        compressed=st.integers(0, 10**5),
    ),
    factor=st.floats(0.01, 100),
)
def test_prices_scale_and_stay_in_order(counts: ReplayCounts, factor: float) -> None:
    table = CostTable.shipped()
    scaled = {
        name: replace(cost, value=cost.value * factor) if cost.unit is CostUnit.SECONDS else cost
        for name, cost in table.costs.items()
    }
    once, other = table.added(counts), CostTable(scaled).added(counts)
    for name in ("total", "mean", "p50", "p99"):
        assert tuple(getattr(other, name)) == pytest.approx([x * factor for x in getattr(once, name)])
    assert once.p50.high <= once.p99.high


def test_a_table_lacks_nothing_and_has_nothing_else() -> None:
    shipped = CostTable.shipped()
    with pytest.raises(BadInputError, match="costs without compress_seconds"):
        CostTable({name: cost for name, cost in shipped.costs.items() if name != "compress_seconds"})
    with pytest.raises(BadInputError, match="no cost is called 'tea'"):
        shipped.with_measured({"tea": Cost("tea", "", CostUnit.SECONDS, CostRange.exactly(1), "")})
    ratio = replace(shipped.costs["compressed_ratio"], value=CostRange(0.5, 0.9, 1.1))
    with pytest.raises(BadInputError, match=r"compressed_ratio up to 1\.1"):
        shipped.with_measured({"compressed_ratio": ratio})


def measured(**changes: object) -> CostsFile:
    one = {"low": 1e-6, "typical": 2e-6, "high": 3e-6, "unit": "s", "samples": 9, "how": "here"} | changes
    return CostsFile(
        measured_at="2026-01-01T00:00:00+00:00",
        conditions={"cpu": "x"},
        costs={"compress_seconds": Measured.model_construct(**one)},  # type: ignore[arg-type]  # also wrong ones
        missing={"swap_in_seconds": "no folder was given"},
    )


def test_measured_costs_take_the_place_of_shipped_ones(tmp_path: Path) -> None:
    write_costs(tmp_path / "costs.json", measured())
    table = CostTable.shipped().with_measured(read_costs(tmp_path / "costs.json").as_costs())
    assert table["compress_seconds"] == CostRange(1e-6, 2e-6, 3e-6)
    assert table.costs["compress_seconds"].source.startswith("measured on 2026-01-01")
    assert table["swap_in_seconds"] == CostTable.shipped()["swap_in_seconds"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "Invalid JSON"),
        ('{"version": 2}', "version: Input should be 1"),
        (measured().model_dump_json().replace('"low":1e-6', '"low":NaN'), "costs.compress_seconds.low"),
        (measured().model_dump_json().replace('"low":1e-6', '"low":-1'), "greater than or equal to 0"),
    ],
)
def test_a_file_of_costs_that_is_none_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(BadInputError) as error:
        read_costs(path)
    assert wrong in error.value.brief
    assert "model calibrate" in error.value.hint


def test_costs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInputError, match="must ascend"):
        measured(low=9.0).as_costs()
    with pytest.raises(BadInputError, match="with unit 'h'"):
        measured(unit="h").as_costs()


COSTS_RUN = open_run(Path(__file__).parents[2] / "results" / "reference" / "costs")


def test_instructions_of_a_run_are_of_the_phases_that_they_say() -> None:
    """Against the tables of the run, read here without any of it."""
    rows = pd.read_csv(COSTS_RUN.directory / "summary.csv").set_index("arm")
    keeps, frees = rows.loc["6.12-sparse"], rows.loc["7.x-sparse"]
    found = instruction_costs(COSTS_RUN)
    assert set(found) == {"free_seconds", "fault_seconds"}
    more = keeps["munmap_instructions_per_table"] - keeps["discard_instructions_per_table"]
    again = "touch_again_instructions_per_table"
    assert found["free_seconds"].typical == pytest.approx(more.mean())
    assert found["fault_seconds"].typical == pytest.approx(frees[again].mean() - keeps[again].mean())
    for one in found.values():
        assert one.low < one.typical < one.high
        assert one.boots == 5


def test_a_run_without_counts_of_instructions_is_refused() -> None:
    pmd = open_run(COSTS_RUN.directory.parent / "pmd")
    with pytest.raises(BadInputError, match=r"no arm '6\.12-sparse'"):
        instruction_costs(pmd)
    with pytest.raises(BadInputError, match="cannot both keep"):
        instruction_costs(COSTS_RUN, "6.12-sparse", "6.12-sparse")
    with pytest.raises(BadInputError, match="counted instructions"):
        instruction_costs(pmd, "linux-6.12", "linux-7.x")


def counted_costs(rate: AssumedRate | None = None, **costs: Measured) -> CostsFile:
    return CostsFile(
        measured_at="now",
        conditions={},
        costs=costs,
        missing={},
        instructions=instruction_costs(COSTS_RUN),
        assumed_rate=rate,
    )


def test_instructions_stand_beside_costs_and_nothing_is_computed_with_them() -> None:
    shipped = CostTable.shipped()
    file = counted_costs()
    assert file.as_costs() == {}
    table = shipped.with_measured(file.as_costs()).with_instructions(file.as_instructions())
    assert table.costs == shipped.costs
    assert {row["name"]: row["not_counted"] for row in table.rows() if row["instructions"] is None} == {
        name: why for name, why in NOT_COUNTED.items() if name not in file.instructions
    }
    row = next(row for row in table.rows() if row["name"] == "free_seconds")
    assert row["instructions"]["typical"] == file.instructions["free_seconds"].typical
    assert row["value"] == asdict(shipped.costs["free_seconds"])["value"]
    assert all(row["not_counted"] for row in shipped.rows())


def test_an_assumed_rate_makes_seconds_of_what_frees_a_table_only() -> None:
    file = counted_costs(AssumedRate(instructions_per_cycle=0.5, hertz=2e9))
    found = file.as_costs()
    assert set(found) == {"free_seconds"}, "those of a fault are of the other level"
    assert found["free_seconds"].value.typical == pytest.approx(
        file.instructions["free_seconds"].typical / 1e9
    )
    assert "0.5 instructions per cycle at 2 GHz, both assumed" in found["free_seconds"].source
    seconds = Measured(low=1e-6, typical=1e-6, high=1e-6, unit="s", samples=1, how="with a clock")
    both = counted_costs(AssumedRate(instructions_per_cycle=1, hertz=1e9), free_seconds=seconds).as_costs()
    assert both["free_seconds"].value == CostRange.exactly(1e-6), "what a clock said is not overruled"


def test_a_difference_below_nothing_is_kept_as_measured_and_takes_no_time() -> None:
    file = counted_costs(AssumedRate(instructions_per_cycle=1, hertz=1e9))
    below = file.instructions["free_seconds"].model_copy(update={"low": -7.0, "typical": -2.0, "high": 3.0})
    file = CostsFile.model_validate(
        file.model_copy(update={"instructions": {"free_seconds": below}}).model_dump()
    )
    assert file.as_instructions()["free_seconds"].low == -7.0
    assert list(file.as_costs()["free_seconds"].value) == pytest.approx([0.0, 0.0, 3e-9])


def test_a_file_without_instructions_is_read_as_before(tmp_path: Path) -> None:
    text = json.loads(measured().model_dump_json())
    del text["instructions"], text["assumed_rate"]
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(text))
    assert read_costs(path) == measured()


def test_instructions_of_what_is_no_cost_are_refused() -> None:
    file = counted_costs()
    wrong = file.model_copy(update={"instructions": {"free_second": file.instructions["free_seconds"]}})
    with pytest.raises(BadInputError, match="free_second"):
        wrong.as_instructions()
    assert set(NOT_COUNTED) == {cost.name for cost in SHIPPED}


def test_calibrate_prints_instructions_apart(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model", "calibrate", "--instructions", str(COSTS_RUN.directory)]
    with pytest.raises(SystemExit):
        main([*words, "--ipc", "1", "--ghz", "3", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["assumed_rate"] == {"instructions_per_cycle": 1.0, "hertz": 3e9}
    assert set(document["instructions"]) == {"free_seconds", "fault_seconds"}
    assert not {"free_seconds", "fault_seconds"} & set(document["costs"])
    for bad in (["--ipc", "1"], ["--ghz", "3"]):
        with pytest.raises(SystemExit) as end:
            main([*words, *bad])
        assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        main(["model", "calibrate", "--ipc", "1", "--ghz", "3"])
    assert end.value.code == 2
