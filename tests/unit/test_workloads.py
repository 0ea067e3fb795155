"""Workload drivers against a shell that plays the guest, and the files that set them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes import Answer, Clock, FakeShell
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import deadline as deadline_module
from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError, CommandTimeoutError, FileProblemsError, GuestError
from orchestrator.guest.shell import CommandError
from orchestrator.workloads import WorkloadDriver, load_workload
from orchestrator.workloads.redis import parse_benchmark

ROOT = Path(__file__).parents[2] / "workloads"
# redis-benchmark 8.0 with --csv
CSV = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","12345.68","0.400","0.100","0.375","0.800","1.250","9.000"
"""
MAPPED = {
    "pid": 99,
    "pages_touched": 25600,
    "page_table_bytes_touched": 105103360,
    "page_table_bytes_let_go": 241664,
    "touch_seconds": 0.5,
    "let_go_seconds": 0.25,
}


def start(name: str, shell: FakeShell, seed: int = 7, **settings: object) -> dict[str, float]:
    return load_workload(ROOT / name, settings).start(shell, seed=seed, deadline=Deadline(60))  # type: ignore[arg-type]  # a fake


def redis_shell(**answers: Answer | list[Answer]) -> FakeShell:
    usual: dict[str, Answer | list[Answer]] = {
        "redis-server": "",
        "redis-cli PING": ["Could not connect", "PONG\n"],
        "redis-benchmark": CSV,
        "redis-cli DBSIZE": "37000\n",
        "redis-cli EVAL": "35150\n",
    }
    return FakeShell({**usual, **answers})


@pytest.mark.parametrize("folder", sorted(ROOT.glob("*/workload.yaml")), ids=lambda path: path.parent.name)
def test_what_we_ship_loads(folder: Path) -> None:
    driver = load_workload(folder.parent)
    assert driver.processes, "or no probe would watch it"
    assert not driver.program or (folder.parent / driver.program).is_file()


def test_redis_is_loaded_and_emptied() -> None:
    shell = redis_shell()
    measured = start("redis", shell, seed=2**31 + 5, value="2KiB")
    assert measured == {
        "ops_per_second": 12345.68,
        "p50_seconds": pytest.approx(0.000375),
        "p99_seconds": pytest.approx(0.00125),
        "keys_stored": 37000,
        "keys_deleted": 35150,
    }
    (load,) = (argv for argv in shell.commands if argv[0] == "redis-benchmark")
    assert load[load.index("-d") + 1] == "2048"
    assert load[load.index("-r") + 1] == "60000"
    assert load[load.index("--seed") + 1] == "5", "redis-benchmark reads it with atoi()"
    (delete,) = (argv for argv in shell.commands if "EVAL" in argv)
    assert delete[-3:] == ["0", "60000", "20"]
    words = [" ".join(argv[:2]) for argv in shell.commands]
    assert words.index("redis-cli PING") < words.index("redis-benchmark -t") < words.index("redis-cli EVAL")
    assert words.count("redis-cli PING") == 2


def test_the_seed_decides_the_load() -> None:
    def load(seed: int) -> list[str]:
        shell = redis_shell()
        start("redis", shell, seed=seed)
        return next(argv for argv in shell.commands if argv[0] == "redis-benchmark")

    assert load(1) == load(1) != load(2)


@pytest.mark.parametrize("answer", ["ERR unknown\n", "", "-1", "9 keys"])
@pytest.mark.parametrize("question", ["redis-cli DBSIZE", "redis-cli EVAL"])
def test_redis_that_answers_nonsense(question: str, answer: str) -> None:
    with pytest.raises(CommandError, match=question):
        start("redis", redis_shell(**{question: answer}))


def test_a_command_that_fails_is_not_a_guest_that_is_lost() -> None:
    with pytest.raises(GuestError) as failed:
        start("redis", redis_shell(**{"redis-server": 1}))
    assert failed.value.outcome == "command-failed"
    assert not isinstance(failed.value, CommandTimeoutError)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.install(monkeypatch, deadline_module)
    return clock


class SlowShell(FakeShell):
    """Every command takes a second."""

    def __init__(self, clock: Clock, **answers: Answer | list[Answer]) -> None:
        super().__init__(answers)
        self.clock = clock

    def run(self, argv: list[str], **options: Any) -> Any:
        self.clock.sleep(1)
        return super().run(argv, **options)


def test_a_redis_that_never_answers_is_given_up(clock: Clock) -> None:
    shell = SlowShell(clock, **{"redis-server": "", "redis-cli PING": 1})
    with pytest.raises(CommandTimeoutError, match="does not answer"):
        load_workload(ROOT / "redis").start(shell, seed=1, deadline=Deadline(10))  # type: ignore[arg-type]  # a fake
    assert clock.seconds <= 1012


@pytest.mark.parametrize(
    ("name", "end", "look"),
    [
        ("redis", "redis-cli SHUTDOWN NOSAVE", "pidof redis-server"),
        ("sparse-map", "pkill -x sparse-map", "pgrep -x sparse-map"),
    ],
)
def test_stopping_waits_until_it_is_gone(clock: Clock, name: str, end: str, look: str) -> None:
    shell = SlowShell(clock, **{end: 1, look: ["412\n", "412\n", 1]})
    load_workload(ROOT / name).stop(shell, deadline=Deadline(10))  # type: ignore[arg-type]  # a fake
    assert [" ".join(argv) for argv in shell.commands] == [end, look, look, look]
    stubborn = SlowShell(clock, **{end: "", look: "412\n"})
    with pytest.raises(CommandTimeoutError, match="did not end"):
        load_workload(ROOT / name).stop(stubborn, deadline=Deadline(10))  # type: ignore[arg-type]  # a fake
    assert len(stubborn.commands) <= 12


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["53687091200", "2097152", "dontneed", "0"]),
        ({"span": "1GiB", "chunk": "64MiB", "advice": "free"}, ["1073741824", "2097152", "free", "67108864"]),
    ],
)
def test_sparse_map(settings: dict[str, object], words: list[str]) -> None:
    shell = FakeShell({"/usr/local/bin/sparse-map": json.dumps(MAPPED)})
    measured = start("sparse-map", shell, **settings)
    assert measured == {name: value for name, value in MAPPED.items() if name != "pid"}
    assert shell.commands == [["/usr/local/bin/sparse-map", *words]]


@pytest.mark.parametrize(
    "said",
    [
        *("", "{}", "[]", "null", '{"pages_touched": null}', "[" * 100_000),
        json.dumps({**MAPPED, "pages_touched": 10**400}),
        json.dumps({**MAPPED, "touch_seconds": "x"}),
    ],
)
def test_sparse_map_that_answers_nonsense(said: str) -> None:
    with pytest.raises(CommandError, match="printed no result"):
        start("sparse-map", FakeShell({"/usr/local/bin/sparse-map": said}))


@pytest.mark.parametrize(
    "said",
    [
        "",
        "SET: 1000 requests per second\n",
        CSV.splitlines()[0],
        CSV + CSV.splitlines()[1],
        CSV.replace('"12345.68"', '"fast"'),
        CSV.replace('"rps"', '"ops"'),
        '"test","rps"\n"SET"\n',
        "x" * 200_000,
    ],
)
def test_a_benchmark_without_a_result(said: str) -> None:
    with pytest.raises(CommandError, match="printed no result"):
        parse_benchmark(said)


@given(st.text())
def test_no_benchmark_text_raises_anything_else(text: str) -> None:
    for said in (text, CSV + text, CSV.splitlines()[0] + "\n" + text):
        with suppress(CommandError):
            assert set(parse_benchmark(said)) == {"ops_per_second", "p50_seconds", "p99_seconds"}


def test_settings_replace_parameters() -> None:
    driver: Any = load_workload(ROOT / "redis", {"keys": 5, "value": "4KiB"})
    assert (driver.keys, driver.value, driver.requests) == (5, 4096, 60000)
    assert load_workload(ROOT / "redis", {}) == load_workload(ROOT / "redis", None)


@pytest.mark.parametrize(
    "settings",
    [{"keys": 0}, {"keys": "many"}, {"value": 1024}, {"kees": 5}, {"keep_one_in": None}],
)
def test_bad_settings_are_the_users(settings: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="'redis' cannot be set so") as refused:
        load_workload(ROOT / "redis", settings)
    assert next(iter(settings)) in refused.value.brief
    assert "workload.yaml" in refused.value.hint


def test_bad_files_have_a_place(tmp_path: Path) -> None:
    def load(text: str) -> WorkloadDriver:
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "workload.yaml").write_text(text)
        return load_workload(tmp_path / "mine")

    assert load("driver: sparse-map\nspan: 1GiB\n").processes == ("sparse-map",)
    with pytest.raises(FileProblemsError, match=r"workload\.yaml:2:7: "):
        load("driver: sparse-map\nspan: 1G\n")
    with pytest.raises(BadInputError, match="no workload driver is called 'mysql'") as refused:
        load("driver: mysql\n")
    assert "redis" in refused.value.hint
    with pytest.raises(BadInputError, match="no workload is called 'yours'") as refused:
        load_workload(tmp_path / "yours")
    assert refused.value.hint == "there are: mine"
