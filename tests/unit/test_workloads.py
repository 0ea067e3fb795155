"""Workload drivers against a shell that plays the guest, and the files that set them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes import Answer, Clock, FakeShell
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import deadline as deadline_module
from orchestrator.deadline import Deadline
from orchestrator.errors import (
    BadInputError,
    CommandError,
    CommandTimeoutError,
    FileProblemsError,
    GuestError,
)
from orchestrator.workloads import WorkloadDriver, load_workload
from orchestrator.workloads.base import FRAME_CLASSES
from orchestrator.workloads.malloc_conf import malloc_conf_text
from orchestrator.workloads.program import parse_report
from orchestrator.workloads.redis import parse_benchmark

ROOT = Path(__file__).parents[2] / "workloads"
# redis-benchmark 8.0 with --csv
CSV = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","12345.68","0.400","0.100","0.375","0.800","1.250","9.000"
"""
MAPPED = {
    "pid": 99,
    "start_seconds": 0.8,
    "held_bytes": 241664,
    "pages_touched": 25600,
    "page_table_bytes_touched": 105103360,
    "page_table_bytes_discarded": 241664,
    "touch_seconds": 0.5,
    "discard_seconds": 0.25,
}


def start(name: str, shell: FakeShell, seed: int = 7, **settings: object) -> dict[str, float]:
    return load_workload(ROOT / name, settings).start(shell, seed=seed, deadline=Deadline(60))


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
    assert driver.expects, "or it could not be said whether its memory was found"


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

    def __init__(self, clock: Clock, answers: Mapping[str, Answer | list[Answer]]) -> None:
        super().__init__(answers)
        self.clock = clock

    def run(self, argv: list[str], **options: Any) -> Any:
        self.clock.sleep(1)
        return super().run(argv, **options)


def test_a_redis_that_never_answers_is_given_up(clock: Clock) -> None:
    shell = SlowShell(clock, {"redis-server": "", "redis-cli PING": 1})
    with pytest.raises(CommandTimeoutError, match="does not answer"):
        load_workload(ROOT / "redis").start(shell, seed=1, deadline=Deadline(10))
    assert clock.seconds <= 1012


@pytest.mark.parametrize(
    ("name", "end", "look"),
    [
        ("redis", "redis-cli SHUTDOWN NOSAVE", "pidof redis-server"),
        ("sparse-map", "pkill -x sparse-map", "pgrep -x sparse-map"),
    ],
)
def test_stopping_waits_until_it_is_gone(clock: Clock, name: str, end: str, look: str) -> None:
    shell = SlowShell(clock, {end: 1, look: ["412\n", "412\n", 1]})
    load_workload(ROOT / name).stop(shell, deadline=Deadline(10))
    assert [" ".join(argv) for argv in shell.commands] == [end, look, look, look]
    stubborn = SlowShell(clock, {end: "", look: "412\n"})
    with pytest.raises(CommandTimeoutError, match="did not end"):
        load_workload(ROOT / name).stop(stubborn, deadline=Deadline(10))
    assert len(stubborn.commands) <= 12


@pytest.mark.parametrize(
    ("name", "settings", "argv"),
    [
        (
            "sparse-map",
            {},
            (
                "/usr/local/bin/sparse-map 53687091200 stride=2097152 advice=dontneed chunk=0 "
                "backing=anonymous window=0"
            ),
        ),
        (
            "sparse-map",
            {"span": "1GiB", "chunk": "64MiB", "advice": "keep", "backing": "file"},
            (
                "/usr/local/bin/sparse-map 1073741824 stride=2097152 advice=keep chunk=67108864 "
                "backing=file window=0"
            ),
        ),
        (
            "sparse-map",
            {"span": "1GiB", "window": "128MiB"},
            (
                "/usr/local/bin/sparse-map 1073741824 stride=2097152 advice=dontneed chunk=0 "
                "backing=anonymous window=134217728"
            ),
        ),
        ("dentries", {"amount": "16MiB"}, "/usr/local/bin/dentries 16777216"),
        ("sockets", {}, "/usr/local/bin/sockets 67108864 family=tcp connections=64"),
        (
            "sockets",
            {"options": {"family": "unix"}},
            "/usr/local/bin/sockets 67108864 family=unix connections=64",
        ),
        ("tmpfs", {"options": {"file": "1MiB"}}, "/usr/local/bin/tmpfs 268435456 file=1048576"),
        (
            "churn",
            {
                "malloc_conf": {"dirty_decay_ms": 0, "retain": True, "thp": "never"},
                "environment": {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"},
            },
            (
                "env GLIBC_TUNABLES=glibc.malloc.arena_max=1 LD_PRELOAD=libjemalloc.so.2 "
                "MALLOC_CONF=abort_conf:true,dirty_decay_ms:0,retain:true,thp:never "
                "/usr/local/bin/churn 268435456 rounds=3 keep_one_in=16 smallest=64 largest=16384 "
                "seed=5 allocator=jemalloc"
            ),
        ),
        (
            "churn",
            {"allocator": "tcmalloc", "environment": {"TCMALLOC_RELEASE_RATE": 10}, "options": {"rounds": 1}},
            (
                "env TCMALLOC_RELEASE_RATE=10 LD_PRELOAD=libtcmalloc_minimal.so.4 "
                "/usr/local/bin/churn 268435456 rounds=1 keep_one_in=16 smallest=64 largest=16384 "
                "seed=5 allocator=tcmalloc"
            ),
        ),
        (
            "churn",
            {"allocator": "glibc", "amount": "1GiB"},
            (
                "/usr/local/bin/churn 1073741824 rounds=3 keep_one_in=16 smallest=64 largest=16384 "
                "seed=5 allocator=glibc"
            ),
        ),
    ],
)
def test_what_a_program_is_started_with(name: str, settings: dict[str, object], argv: str) -> None:
    shell = FakeShell({argv.split(maxsplit=1)[0]: json.dumps(MAPPED)})
    measured = start(name, shell, seed=2**31 + 5, **settings)
    assert measured == {figure: value for figure, value in MAPPED.items() if figure != "pid"}
    assert [" ".join(words) for words in shell.commands] == [argv]


@pytest.mark.parametrize(
    "said",
    [
        *("", "{}", "[]", "null", '{"held_bytes": null}', "[" * 100_000, "NaN"),
        *(json.dumps({**MAPPED, "held_bytes": bad}) for bad in (10**400, "x", True, -1, [1])),
        json.dumps({**MAPPED, "held_bytes": float("nan")}),
        json.dumps({**MAPPED, "held_bytes": float("inf")}),
        json.dumps({**MAPPED, "Not A Figure": 1}),
        json.dumps({**MAPPED, **{f"figure_{i}": i for i in range(40)}}),
        json.dumps({name: value for name, value in MAPPED.items() if name != "held_bytes"}),
    ],
)
@pytest.mark.parametrize("name", ["sparse-map", "pin"])
def test_a_program_that_answers_nonsense(name: str, said: str) -> None:
    with pytest.raises(CommandError, match=f"{name} printed no result: "):
        start(name, FakeShell({f"/usr/local/bin/{name}": said}))


def test_a_sparse_map_reports_what_the_summary_is_made_of() -> None:
    said = json.dumps({"held_bytes": 1})
    assert start("pin", FakeShell({"/usr/local/bin/pin": said})) == {"held_bytes": 1}
    with pytest.raises(CommandError, match="pages_touched is missing"):
        start("sparse-map", FakeShell({"/usr/local/bin/sparse-map": said}))


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_report_raises_anything_else(text: str) -> None:
    with suppress(ValueError):
        assert "held_bytes" in parse_report(text, ("held_bytes",))


def test_redis_takes_settings_of_its_allocator() -> None:
    shell = redis_shell(env="")
    start("redis", shell, malloc_conf={"muzzy_decay_ms": -1, "background_thread": False})
    assert shell.commands[0] == [
        "env",
        "MALLOC_CONF=abort_conf:true,muzzy_decay_ms:-1,background_thread:false",
        "redis-server",
        "/etc/redis/workload.conf",
    ]


def test_malloc_conf_is_in_the_order_it_was_written() -> None:
    assert malloc_conf_text({}) == "abort_conf:true"
    assert malloc_conf_text({"narenas": 1, "abort_conf": False}) == "abort_conf:false,narenas:1"


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


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sockets", {"options": {"conections": 1}}, "no option 'conections'; there are: family, connections"),
        ("dentries", {"options": {"x": 1}}, "no option 'x'; there are: none"),
        ("sockets", {"options": {"connections": "many"}}, "'connections' is of another kind; compare 64"),
        ("sockets", {"options": {"family": 1}}, "'family' is of another kind; compare 'tcp'"),
        ("sockets", {"options": {"family": "a b"}}, "options.family"),
        ("sockets", {"options": {"connections": True}}, "options.connections"),
        ("sockets", {"amount": "0B"}, "amount"),
        ("pin", {"expects": ["pins"]}, "no class of frames is called 'pins'; there are: page_table, "),
        ("pin", {"expects": ["pinned", "pinned"]}, "named twice"),
        ("pin", {"program": "../pin.c"}, "program"),
        ("sparse-map", {"backing": "file", "advice": "free"}, "anonymous memory only"),
        ("sparse-map", {"advice": "keep", "window": "2MiB"}, "with advice: keep nothing is discarded"),
        ("sparse-map", {"window": "4097B"}, "window"),
        ("sparse-map", {"window": "some"}, "window"),
        ("sparse-map", {"span": "0B"}, "span"),
        ("sparse-map", {"stride": "0B"}, "stride"),
        ("churn", {"allocator": "glibc", "malloc_conf": {"thp": "never"}}, "read by jemalloc only"),
        ("churn", {"malloc_conf": {"thp": "never,retain:true"}}, "malloc_conf.thp"),
        ("churn", {"malloc_conf": {"a:b": 1}}, "malloc_conf"),
        ("churn", {"environment": {"LD_PRELOAD": "x"}}, "LD_PRELOAD follows from"),
        ("churn", {"environment": {"MALLOC_CONF": "x"}}, "MALLOC_CONF follows from"),
        ("churn", {"environment": {"a=b": "x"}}, "environment"),
        ("churn", {"linkage": "static"}, "linkage is dynamic"),
    ],
)
def test_settings_that_a_driver_refuses(name: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadInputError) as refused:
        load_workload(ROOT / name, settings)
    assert words in refused.value.brief


def test_a_setting_that_is_a_mapping_is_written_over_key_by_key() -> None:
    driver: Any = load_workload(ROOT / "churn", {"options": {"rounds": 9}})
    assert driver.options == {"rounds": 9, "keep_one_in": 16, "smallest": 64, "largest": 16384}
    assert load_workload(ROOT / "churn", {"allocator": "glibc"}) != load_workload(ROOT / "churn")


@pytest.mark.parametrize("name", FRAME_CLASSES)
def test_every_class_of_frames_can_be_expected(name: str) -> None:
    assert load_workload(ROOT / "pin", {"expects": [name]}).expects == (name,)


def test_bad_files_have_a_place(tmp_path: Path) -> None:
    def load(text: str) -> WorkloadDriver:
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "workload.yaml").write_text(text)
        return load_workload(tmp_path / "mine")

    mine = load("driver: sparse-map\nprogram: mine.c\nspan: 1GiB\n")
    assert (mine.processes, mine.expects, mine.linkage) == (("mine",), (), "static")
    with pytest.raises(FileProblemsError, match=r"workload\.yaml:3:7: "):
        load("driver: sparse-map\nprogram: mine.c\nspan: 1G\n")
    with pytest.raises(FileProblemsError, match=r"workload\.yaml:2:10: "):
        load("driver: sparse-map\nprogram: longer-than-a-comm.c\nspan: 1GiB\n")
    with pytest.raises(FileProblemsError, match="no class of frames is called 'slabs'"):
        load("driver: sparse-map\nprogram: mine.c\nspan: 1GiB\nexpects: [slabs]\n")
    with pytest.raises(BadInputError, match="no workload driver is called 'mysql'") as refused:
        load("driver: mysql\n")
    assert "redis" in refused.value.hint
    with pytest.raises(BadInputError, match="no workload is called 'yours'") as refused:
        load_workload(tmp_path / "yours")
    assert refused.value.hint == "there are: mine"
