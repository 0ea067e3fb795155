"""The last line of defence: whatever happens is told, with a code that says what it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from orchestrator.cli import main
from orchestrator.cli import main as main_function
from orchestrator.errors import FileProblemsError, Problem
from orchestrator.store.atomic import replace_file, replace_text

main_module = sys.modules[main_function.__module__]


def ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> tuple[int, str]:
    """Exit code and standard error of a verb that raises."""

    @click.command()
    def verb() -> None:
        raise error

    monkeypatch.setattr(main_module.LazyGroup, "get_command", lambda *_: verb)
    with pytest.raises(SystemExit) as end:
        main(["clean"])
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line", "hint"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/r/a"),
            "/r/a: No space left on device",
            "df -h /r/a",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/r"), "/r: Permission denied", "ls -ld /r"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "passt"),
            "passt: No such file",
            "orchestrator doctor",
        ),
        (OSError("odd"), "odd", "orchestrator doctor"),
        (
            subprocess.CalledProcessError(4, ["mke2fs", "-d"], stderr=b"it [bold]burns"),
            "mke2fs: ended with exit code 4\nit [bold]burns",
            "orchestrator doctor",
        ),
    ],
)
def test_what_the_host_refuses_is_told_in_a_line(
    error: Exception,
    line: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, err = ends(monkeypatch, capsys, error)
    assert code == 3
    assert err.startswith(f"error: {line}\n")
    assert hint in err.splitlines()[-1]
    assert "Traceback" not in err


def test_no_error_names_a_file_with_a_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(fresh: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(fresh))

    with pytest.raises(OSError, match="No space left") as caught:
        replace_file(tmp_path / "page.html", no_room)
    code, err = ends(monkeypatch, capsys, caught.value)
    assert (code, err.splitlines()[0]) == (3, f"error: {tmp_path / 'page.html'}: No space left on device")
    file = tmp_path / "in"
    file.write_text("")
    with pytest.raises(OSError, match="Not a directory") as caught:
        replace_text(file / "page.html", "x")
    assert caught.value.filename == str(file / "page.html")
    for name in (".building-x1", "tmpab12"):
        _, err = ends(
            monkeypatch, capsys, OSError(errno.EROFS, "Read-only file system", str(tmp_path / name))
        )
        assert err.splitlines() == [
            f"error: {tmp_path}: Read-only file system",
            f"next: see whose it is: ls -ld {tmp_path}",
        ]


def test_a_fault_of_ours_is_no_failed_expectation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = ends(monkeypatch, capsys, KeyError("oops"))
    assert code == 3
    first, second, *_ = err.splitlines()
    assert first == "error: internal error: KeyError: 'oops'"
    assert second == "Traceback (most recent call last):"


@pytest.mark.parametrize(
    ("error", "words"),
    [(MemoryError(), "no more memory"), (RuntimeError("can't start new thread"), "no more threads")],
)
def test_what_a_machine_refuses_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    code, err = ends(monkeypatch, capsys, error)
    first, second = err.splitlines()
    assert (code, first) == (3, f"error: this machine gives the orchestrator {words}")
    assert second.startswith("next: ")


def test_a_terminal_that_went_with_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # click prints an empty line for it, and that fails.
    error = OSError(errno.EIO, "Input/output error")
    error.__context__ = KeyboardInterrupt()
    assert ends(monkeypatch, capsys, error) == (130, "")


def test_problems_stand_at_the_beginning_of_their_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = FileProblemsError(
        [Problem("[a].yaml", 1, 2, "wrong :smile:"), Problem("b.yaml", 3, 4, "no", "yes")]
    )
    assert ends(monkeypatch, capsys, error) == (
        2,
        "[a].yaml:1:2: wrong :smile:\nb.yaml:3:4: no; yes\n2 problems\n",
    )


@pytest.mark.parametrize("argv", [["--help"], ["schema"], ["doctor", "--help"]])
def test_a_reader_that_has_seen_enough_is_no_fault(argv: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *argv],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
