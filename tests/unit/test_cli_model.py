"""`orchestrator model`, as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic_run

from orchestrator.cli import main
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.patterns import PATTERNS
from orchestrator.model.policies import POLICIES, OverSnapshot, OverTrace, OverTree

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "tables"


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `orchestrator model ARGV`."""
    with pytest.raises(SystemExit) as end:
        main(["model", *argv])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_policies_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call(capsys, "policies", "--json")
    rows = json.loads(text)["policies"]
    assert code == 0
    assert [row["name"] for row in rows] == POLICIES.names()
    for question in (OverSnapshot, OverTrace, OverTree):
        asked = [row["name"] for row in rows if question.question in row["over"]]
        assert asked == question.names()
    assert all(row["over"] and row["what"] and "\n" not in row["what"] for row in rows)
    code, text, _ = call(capsys, "policies")
    assert (code, len(text.splitlines()) >= len(rows) + 1) == (0, True)


def test_a_made_up_guest_has_tables_and_policies_free_some(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("guest", "sparse", "--set", "span=64MiB")
    code, text, _ = call(capsys, *argv, "--json")
    found = json.loads(text)
    freed = {row["policy"]: row["tables_freed"] for row in found["modelled"]}
    assert (code, set(freed)) == (0, set(OverSnapshot.names()))
    assert found["table_bytes"] == 4096 * sum(found["tables_of_level"])
    assert freed["empty"] == found["tables_of_level"][1] == 32
    assert freed["none"] == 0
    code, text, _ = call(capsys, *argv, "--pick", "3", "--json")
    picked = {row["policy"]: row["tables_freed"] for row in json.loads(text)["modelled"]}
    assert (code, picked["empty"]) == (0, 3)
    code, text, _ = call(capsys, *argv)
    assert (code, "32 of level 1" in text, "128 KiB" in text) == (0, True, True)
    assert call(capsys, "guest", "sparse", "--set", "span")[0] == 2


def test_counts_add_up() -> None:
    counts = ReplayCounts(
        touches=10, hits=4, cold_misses=3, rebuilt=1, decompressed=1, swapped_in=1, dropped=2
    )
    assert (counts.refaults, counts.misses, counts.evicted) == (3, 6, 2)
    assert counts.as_dict()["misses"] == 6


@pytest.fixture
def trace_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A small trace, made as people make it."""
    path = tmp_path / "t.npz"
    code, text, _ = call(
        capsys, "trace", "phases", "-o", str(path), "--set", "size=64MiB", "--set", "touches=50"
    )
    assert (code, "32 tables" in text) == (0, True)
    return str(path)


@pytest.mark.slow
def test_replay_and_compare_say_the_same(trace_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call(capsys, "compare", trace_file, "--budget", "32KiB", "--action", "swap", "--json")
    rows = {row["policy"]: row for row in json.loads(text)["modelled"]}
    assert (code, set(rows)) == (0, set(OverTrace.names()))
    argv = ("replay", trace_file, "--policy", "lru", "--budget", "32KiB", "--action", "swap")
    code, text, _ = call(capsys, *argv, "--json")
    one = json.loads(text)["modelled"]
    added = one.pop("added_seconds")["mean"]
    assert one.items() <= rows["lru"].items()
    assert one["swapped_out"] > 0
    assert 0 < added["low"] <= added["typical"] <= added["high"]
    code, text, _ = call(capsys, *argv)
    assert (code, "swapped out" in text, "modelled" in text) == (0, True, True)


def test_compare_has_every_action_with_its_interval(
    trace_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = call(capsys, "compare", trace_file, "--budget", "32KiB", "--json")
    rows = {(row["policy"], row["action"]): row for row in json.loads(text)["modelled"]}
    actions = ("drop", "migrate", "compress", "swap")
    assert (code, set(rows)) == (0, {(name, action) for name in OverTrace.names() for action in actions})
    for (_, action), row in rows.items():
        assert row["evicted_bytes"] == row["evicted"] * 4096
        assert row["peak_bytes"] == row["peak_tables"] * 4096
        added = row["added_seconds"]["mean"]
        assert 0 <= added["low"] <= added["typical"] <= added["high"]
        assert (row["migrated"] > 0) == (action == "migrate" and row["evicted"] > 0)
    # What nothing is taken by adds the same, whatever becomes of what is taken.
    assert len({str(rows["empty", action]["added_seconds"]) for action in actions}) == 1
    assert len({str(rows["lru", action]["added_seconds"]) for action in actions}) == len(actions)
    code, text, _ = call(capsys, "compare", trace_file, "--budget", "32KiB", "--action", "swap")
    assert (code, "modelled, swap" in text, "compress" in text) == (0, True, False)
    assert max(map(len, text.splitlines()[3:])) <= 80


@pytest.mark.slow
def test_compare_of_a_run_has_blocks_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = synthetic_run.write_run(tmp_path / "results")
    argv = ("compare", run.name, "--results", str(run.parent), "--budget", "1MiB", "--action", "drop")
    assert "modelled_of_snapshots" not in json.loads(call(capsys, *argv, "--json")[1])
    code, text, err = call(capsys, *argv, "--blocks", "--json")
    assert code == 0, err
    found = json.loads(text)["modelled_of_snapshots"]
    of = {(one["snapshot"], one["policy"]): one for one in found}
    assert {snapshot for snapshot, _ in of} == {"loaded", "after-unplug"}
    assert {policy for _, policy in of} == set(OverSnapshot.names())
    upper, moved = of["loaded", "empty_all_levels"], of["loaded", "migrate"]
    assert upper["blocks_freed"] > of["loaded", "empty"]["blocks_freed"] == 0
    assert moved["blocks_freed_if_moved"] == upper["blocks_freed"]
    # Freeing takes less than moving, and doing nothing takes nothing.
    assert 0 < upper["reclaim_seconds"]["high"] < moved["reclaim_seconds"]["high"]
    assert of["loaded", "none"]["reclaim_seconds"]["high"] == 0
    code, text, _ = call(capsys, *argv, "--blocks")
    assert (code, "with migration" in text, "takes, ms" in text) == (0, True, True)


def test_nodes_have_the_room_of_all_of_them(trace_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("replay", trace_file, "--policy", "lru", "--budget", "32KiB", "--action", "migrate", "--json")
    found = {}
    for nodes in ((), ("16KiB",), ("8KiB", "8KiB"), ("0B",)):
        options = [word for node in nodes for word in ("--other-node", node)]
        found[nodes] = json.loads(call(capsys, *argv, *options)[1])["modelled"]
    assert found["16KiB",] == found["8KiB", "8KiB"]
    assert found["16KiB",]["migrated"] == 4 < found[()]["migrated"]
    assert found["16KiB",]["not_moved"] > 0 == found[()]["not_moved"]
    assert found["0B",]["migrated"] == 0


def test_measured_costs_take_the_place_of_shipped_ones(
    trace_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("replay", trace_file, "--policy", "lru", "--budget", "32KiB", "--action", "swap", "--json")
    measured = json.loads((REFERENCE / "costs.json").read_text())
    for name in ("swap_in_seconds", "swap_out_seconds"):
        measured["costs"][name] |= {"low": 1.0, "typical": 1.0, "high": 1.0}
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps(measured))
    code, text, _ = call(capsys, *argv, "--costs", str(costs))
    found = json.loads(text)["modelled"]
    assert code == 0
    seconds = found["added_seconds"]["total"]["typical"]
    assert seconds == pytest.approx(found["swapped_in"] + found["swapped_out"], rel=1e-3)
    costs.write_text(json.dumps(measured).replace("1.0", "NaN"))
    code, _, err = call(capsys, *argv, "--costs", str(costs))
    assert (code, "costs.swap_out_seconds.low" in err) == (2, True)


def test_a_run_is_replayed_by_its_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = synthetic_run.write_run(tmp_path / "results")
    argv = ("replay", run.name, "--results", str(run.parent), "--policy", "empty", "--budget", "1GiB")
    code, text, err = call(capsys, *argv, "--json")
    assert code == 0, err
    found = json.loads(text)
    assert found["modelled"]["cold_misses"] == found["tables"]
    pairs = found["snapshot_pairs"]
    assert [pair["snapshot"] for pair in pairs] == ["loaded", "after-unplug"]
    assert pairs[0]["touched_at_least"] == pairs[0]["tables"] > 0
    assert all(pair["touched_at_least"] <= pair["touched_at_most"] for pair in pairs)
    assert "at least once since it was cleared" in found["assumption"]
    certain = json.loads(call(capsys, *argv, "--touches", "certain", "--json")[1])
    assert certain["assumption"].endswith("(certain)")
    code, text, _ = call(capsys, *argv)
    assert (code, "touched: at least" in text) == (0, True)
    code, _, err = call(capsys, *argv, "--trial", "nobody-01")
    assert (code, "has no trial nobody-01" in err, "there are: " in err) == (2, True, True)


def test_a_nested_hosts_snapshots_are_not_its_guests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = synthetic_run.write_run(tmp_path / "results")
    argv = ("replay", run.name, "--results", str(run.parent), "--policy", "empty", "--budget", "1GiB")
    events = run / "trials" / f"{synthetic_run.ARMS[0].name}-01" / "events.jsonl"
    text = events.read_text()
    events.write_text(text.replace('"label": "after-unplug"', '"of": "host", "label": "after-unplug"'))
    found = json.loads(call(capsys, *argv, "--json")[1])
    assert [pair["snapshot"] for pair in found["snapshot_pairs"]] == ["loaded"]
    assert found["trace"].endswith(", guest")
    # Where nothing else was read, the host's are.
    events.write_text(text.replace('"label": ', '"of": "host", "label": '))
    found = json.loads(call(capsys, *argv, "--json")[1])
    assert (found["trace"].endswith(", host"), len(found["snapshot_pairs"])) == (True, 2)
    events.write_text(text.replace('"snapshot"', '"other"'))
    code, _, err = call(capsys, *argv)
    assert (code, "took no snapshot" in err, "add a `snapshot` step" in err) == (2, True, True)


def test_patterns_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call(capsys, "trace", "--json")
    assert (code, {row["name"] for row in json.loads(text)["patterns"]}) == (0, set(PATTERNS.names()))
    assert "redis_churn" in call(capsys, "trace")[1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("replay", "T", "--policy", "best", "--budget", "1MiB"), "there are: belady"),
        (("replay", "T", "--policy", "lru", "--budget", "-1GiB"), "not a size"),
        (("replay", "T", "--policy", "lru", "--budget", "1KiB"), "less than one table (4KiB)"),
        (("replay", "gone.npz", "--policy", "lru", "--budget", "1MiB"), "cannot be read"),
        (("replay", "nowhere", "--policy", "lru", "--budget", "1MiB"), "no run called"),
        (("replay", "T", "--policy", "lru", "--budget", "1MiB", "--trial", "a-01"), "a trace, and no run"),
        (("replay", "T", "--policy", "lru", "--budget", "1MiB", "--touches", "certain"), "and no run"),
        (("replay", "T", "--policy", "lru", "--budget", "1MiB", "--touches", "all"), "possible"),
        (("replay", "T", "--policy", "lru", "--budget", "1MiB", "--other-node", "-1GiB"), "not a size"),
        (("compare", "T", "--budget", "1MiB", "--blocks"), "has no blocks"),
        (("compare", "T", "--budget", "1MiB", "--action", "burn"), "compress"),
        (("trace", "dense"), "say where to: -o FILE"),
        (("trace", "dense", "-o", "x.npz", "--set", "size"), "write NAME=VALUE"),
        (("trace", "lumpy", "-o", "x.npz"), "no pattern is called 'lumpy'"),
        (("trace", "sparse", "-o", "x.npz", "--set", "unmapped=nan"), "unmapped"),
    ],
)
def test_wrong_input_is_2_and_a_line(
    argv: tuple[str, ...], words: str, trace_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, *(trace_file if word == "T" else word for word in argv))
    assert code == 2
    assert words in err
