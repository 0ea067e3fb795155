"""The guest's stream: whole ticks however it is cut, and from garbage a StreamError and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.guest.sampler import MAX_FILES, Tick, read_ticks, sampler_argv
from orchestrator.guest.stream import MAX_FILE_BYTES, MAX_LINE_BYTES, StreamError

paths = st.from_regex(r"/[a-z/]{0,20}", fullmatch=True)
texts = st.text(max_size=40)
ticks = st.builds(
    Tick,
    st.integers(0, 2**64 - 1),
    st.dictionaries(paths, st.none() | texts, max_size=4),
    st.lists(
        st.tuples(st.from_regex(r"[a-z-]{1,15}", fullmatch=True), st.integers(1, 1 << 22), texts), max_size=3
    ).map(tuple),
)


def written(tick: Tick) -> bytes:
    """A tick as guest-probe writes it."""

    def file(path: str, text: str | None) -> bytes:
        if text is None:
            return f"#file {path} -1\n\n".encode()
        return f"#file {path} {len(text.encode())}\n".encode() + text.encode() + b"\n"

    parts = [f"#tick {tick.uptime_ns}\n".encode()]
    parts += [file(path, text) for path, text in tick.files.items()]
    for comm, pid, text in tick.processes:
        parts += [f"#process {comm} {pid}\n".encode(), file(f"/proc/{pid}/status", text)]
    return b"".join([*parts, b"#end\n"])


def source(parts: Iterable[bytes]) -> Callable[[int], bytes]:
    left = iter([part for part in parts if part])
    return lambda size: next(left, b"")


def whole(data: bytes) -> list[Tick]:
    return list(read_ticks(source([data])))


@given(st.lists(ticks, max_size=4), st.data())
def test_however_it_is_cut(sent: list[Tick], data: st.DataObject) -> None:
    stream = b"".join(map(written, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parts = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert list(read_ticks(source(parts))) == sent


@given(ticks, ticks, st.data())
def test_a_torn_stream_gives_the_ticks_before_the_tear(
    first: Tick, second: Tick, data: st.DataObject
) -> None:
    begin, rest = written(first), written(second)
    length = data.draw(st.integers(0, len(rest) - 1))
    got: list[Tick] = []
    try:
        for tick in read_ticks(source([begin + rest[:length]])):
            got.append(tick)  # noqa: PERF402  # what came before the error counts
    except StreamError:
        assert length > rest.index(b"\n"), "an end between two ticks is an end"
    assert got == [first]


pieces = [
    *(b"#tick ", b"#tick", b"#file ", b"#process ", b"#end\n", b"#end", b"/proc/x", b" ", b"\n"),
    *(b"1", b"-1", b"-2", b"9" * 23, b"\xff", b"\xd9\xa1", b"1_0", b"+1", b"\x00", b"\r"),
]
shaped = st.lists(st.sampled_from(pieces), max_size=30).map(b"".join)


@given(st.binary(max_size=200) | shaped)
def test_garbage_is_a_stream_error_and_nothing_else(data: bytes) -> None:
    with suppress(StreamError):
        for tick in read_ticks(source([data])):
            assert 0 <= tick.uptime_ns <= 10**20


def test_an_error_does_not_repeat_all_that_the_guest_said() -> None:
    for data in (b"x" * 4000 + b"\n", b"#tick 1\n" + b"y" * 4000 + b"\n", b"#tick " + b"z" * 4000 + b"\n"):
        with pytest.raises(StreamError) as error:
            whole(data)
        assert len(str(error.value)) < 200


@given(shaped, st.integers(1, 7))
def test_garbage_means_the_same_however_it_is_cut(data: bytes, size: int) -> None:
    def outcome(parts: list[bytes]) -> str:
        try:
            return str(list(read_ticks(source(parts))))
        except StreamError as error:
            return str(error)

    assert outcome([data]) == outcome([data[at : at + size] for at in range(0, len(data), size)])


@pytest.mark.parametrize("number", ["", "x", "-1", "1" * 21, "1.5", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_an_uptime_is_a_u64(number: str) -> None:
    with pytest.raises(StreamError):
        whole(f"#tick {number}\n#end\n".encode())


def test_sizes_are_bounded_before_they_are_believed() -> None:
    asked: list[int] = []

    def endless(size: int) -> bytes:
        asked.append(size)
        return b"#tick 1\n#file /proc/x 1000000000\n" if len(asked) == 1 else b"x" * size

    with pytest.raises(StreamError, match="has 1000000000 bytes"):
        list(read_ticks(endless))
    assert len(asked) == 1, "nothing of it was read"
    assert len(whole(b"#tick 1\n#file /x %d\n" % MAX_FILE_BYTES + b"x" * MAX_FILE_BYTES + b"\n#end\n")) == 1


@pytest.mark.parametrize("chunk", [100, 1 << 16])
def test_a_line_is_bounded(chunk: int) -> None:
    line = b"#tick 1\n#file /" + b"x" * MAX_LINE_BYTES + b" 0\n\n#end\n"
    with pytest.raises(StreamError, match="too long"):
        list(read_ticks(source([line[at : at + chunk] for at in range(0, len(line), chunk)])))


def test_a_line_without_end_is_not_waited_for() -> None:
    with pytest.raises(StreamError, match="too long"):
        list(read_ticks(lambda size: b"x" * size))


def test_a_tick_has_so_many_files_and_no_more() -> None:
    with pytest.raises(StreamError, match=f"more than {MAX_FILES}"):
        whole(b"#tick 1\n" + b"#file /x 0\n\n" * (MAX_FILES + 1))


def test_text_that_is_no_utf_8_is_replaced() -> None:
    (tick,) = whole(b"#tick 5\n#file /x 3\na\xffb\n#end\n")
    assert tick.files == {"/x": "a�b"}


def test_the_command() -> None:
    assert sampler_argv(1.0, ["/proc/meminfo"], ["redis-server"])[1:] == [
        *("sample", "1000", "/proc/meminfo", "--", "redis-server")
    ]
    assert sampler_argv(0.0001, ["/x"], [])[1:] == ["sample", "10", "/x"]
