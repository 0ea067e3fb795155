"""Tables and prose on a terminal, a narrow one, and in a pipe: nothing is cut, no word is broken."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from orchestrator.cli import output
from orchestrator.cli.tables import plain_table, print_table, room

PROSE = "takes the table that came first unless it was accessed since: that one goes to the end"
LONG = "a-name-that-is-typed-again-0123456789"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(monkeypatch: pytest.MonkeyPatch, *, columns: int | None, terminal: bool) -> output._Console:
    for name in ("COLUMNS", "NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    return output._Console(file=Terminal() if terminal else io.StringIO(), highlight=False, color_system=None)


def printed(one: output._Console) -> list[str]:
    assert isinstance(one.file, io.StringIO)
    return [line.rstrip() for line in one.file.getvalue().splitlines()]


def table() -> Table:
    made = plain_table()
    made.add_column("name", no_wrap=True)
    made.add_column("what")
    made.add_column("size", justify="right")
    made.add_row(LONG, PROSE, "1,419.6 MiB")
    made.add_row("b", "short", "2 MiB")
    return made


def test_in_a_pipe_a_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    one = console(monkeypatch, columns=None, terminal=False)
    assert room(one) is None
    print_table(table(), one)
    assert printed(one)[1] == f"{LONG}  {PROSE}  1,419.6 MiB"
    assert len(printed(one)) == 3


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100])
@pytest.mark.parametrize("terminal", [True, False])
def test_with_little_room_words_stay_whole(
    monkeypatch: pytest.MonkeyPatch, columns: int, terminal: bool
) -> None:
    one = console(monkeypatch, columns=columns, terminal=terminal)
    print_table(table(), one)
    words = " ".join(printed(one)).split()
    assert sorted(words) == sorted(f"name what size {LONG} {PROSE} 1,419.6 MiB b short 2 MiB".split())
    widest = max(map(len, printed(one)))
    least = len(LONG) + 2 + len("accessed") + 2 + len("1,419.6")
    assert widest <= max(columns, least)


def test_only_a_column_that_folds_breaks_a_long_word(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plain_table(show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    made.add_row("at", "qemu:///embed?root=/var/tmp/orchestrator-0/0123456789abcdef/v")
    one = console(monkeypatch, columns=40, terminal=True)
    print_table(made, one)
    assert max(map(len, printed(one))) <= 40
    assert "".join(line[4:] for line in printed(one)).endswith("abcdef/v")


def test_prose_wraps_between_words_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    one = console(monkeypatch, columns=30, terminal=True)
    one.print(PROSE)
    assert max(map(len, printed(one))) <= 30
    assert " ".join(printed(one)) == PROSE
    piped = console(monkeypatch, columns=30, terminal=False)
    piped.print(PROSE)
    assert printed(piped) == [PROSE]


def test_what_to_type_next_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    one = console(monkeypatch, columns=30, terminal=True)
    output.print_next(f"orchestrator show {LONG} --results somewhere/else", one)
    assert printed(one) == [f"next: orchestrator show {LONG} --results somewhere/else"]


def test_help_of_groups_cuts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli import main

    monkeypatch.setenv("COLUMNS", "60")
    for group in ("model", "image", "lab"):
        with pytest.raises(SystemExit):
            main([group, "--help"])
        said = capsys.readouterr().out
        assert "..." not in said.replace("[ARGS]...", "")
        assert "keep" not in said.split("Verbs:")[1] or group != "lab", "hidden"
