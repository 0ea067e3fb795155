"""image and shell, as typed; nothing is built or booted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.cli import main, shell
from orchestrator.cli.output import out
from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import GuestPanicError

KEY = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(folder))
    monkeypatch.setattr(out, "width", 60)
    monkeypatch.setenv("COLUMNS", "60")
    return folder


def make_image(cache: Path, name: str = "debian-13", key: str = KEY) -> Path:
    folder = cache / "images" / f"{name}-{key}"
    folder.mkdir(parents=True)
    facts = {"key": key, "releases": {"6.12": "6.12.1-amd64", "7.x": "7.3.4-amd64"}, "packages": {}}
    (folder / "image.json").write_text(json.dumps(facts))
    (folder / "disk.raw").write_bytes(b"x" * 8192)
    return folder


def typed(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_list_names_what_can_be_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_image(cache)
    code, text, _ = typed(capsys, "image", "list")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 60
    assert f"debian-13-{KEY}" in text
    code, text, _ = typed(capsys, "image", "list", "--json")
    (entry,) = json.loads(text)["images"]
    assert entry["releases"] == {"6.12": "6.12.1-amd64", "7.x": "7.3.4-amd64"}
    assert entry["bytes"] >= 8192


def test_an_empty_cache_says_what_to_type(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = typed(capsys, "image", "list")
    assert code == 0
    assert "next: orchestrator image build" in text
    document = json.loads(typed(capsys, "image", "list", "--json")[1])
    assert document == {"format": "orchestrator.image.list/1", "images": [], "states": []}


def test_remove_takes_one_image_and_says_how_much(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone, kept = make_image(cache), make_image(cache, key="f" * 16)
    size_bytes = sum(path.stat().st_blocks * 512 for path in gone.iterdir())
    code, text, _ = typed(capsys, "image", "remove", gone.name)
    assert code == 0
    assert str(gone) in text
    assert f"({size_bytes} bytes)" in text
    assert not gone.exists()
    assert (kept / "disk.raw").exists()


@pytest.mark.parametrize(
    "name", ["../images", "..", ".", "/etc", "debian-13", "../../outside-0123456789abcdef", ""]
)
def test_remove_takes_nothing_that_is_not_listed(
    name: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_image(cache)
    outside = tmp_path / "outside-0123456789abcdef"
    outside.mkdir()
    (outside / "image.json").write_text('{"releases": {}, "packages": {}}')
    code, _, err = typed(capsys, "image", "remove", name)
    assert code == 2
    assert image.name in err  # what could have been meant
    assert image.exists()
    assert outside.exists()


def test_remove_follows_no_link_and_spares_what_is_in_use(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(cache)
    real = make_image(tmp_path / "elsewhere")
    link = cache / "images" / f"linked-{KEY}"
    link.symlink_to(real)
    assert typed(capsys, "image", "remove", link.name)[0] == 2
    assert (real / "image.json").exists()
    monkeypatch.setattr("orchestrator.host.runtime.processes_of", lambda _: iter([SimpleNamespace(pid=4711)]))
    code, _, err = typed(capsys, "image", "remove", image.name)
    assert code == 2
    assert "4711" in err
    assert (image / "image.json").exists()


def test_build_says_what_it_made(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def ensure_image(definition: Any, _keys: object, where: Path, *, progress: Any, refresh: bool) -> Any:
        asked.append((definition.name, refresh))
        progress("building it")
        return SimpleNamespace(folder=make_image(where, definition.name))

    monkeypatch.setattr("orchestrator.guest.image.ensure_image", ensure_image)
    monkeypatch.setattr("orchestrator.guest.keys.ensure_keys", lambda _: None)
    code, text, err = typed(capsys, "image", "build", "--refresh", "--json")
    assert code == 0
    assert asked == [("debian-13", True)]
    assert json.loads(text)["folder"].endswith(KEY)
    assert "building it" in err


def test_build_of_an_unknown_guest_is_bad_input(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = typed(capsys, "image", "build", "nonesuch")
    assert code == 2
    assert "debian-13" in err
    assert not cache.exists()


# --- shell -----------------------------------------------------------------------------------


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What would be booted; `ended` is set when its block is left."""
    made = SimpleNamespace(
        keys=SimpleNamespace(client=tmp_path / "client"),
        shell=SimpleNamespace(port=2222, known_hosts=tmp_path / "known_hosts", proxy=None),
        why_dead=lambda: None,
        booted_with=None,
        ended=False,
    )

    @contextmanager
    def life() -> Iterator[None]:
        try:
            yield
        finally:
            made.ended = True

    def boot(stack: Any, definition: Any, kernel: str, memory: int, connect: str | None) -> Any:
        made.booted_with = (definition.name, kernel, memory, connect)
        stack.enter_context(life())
        return made

    monkeypatch.setattr(shell, "_boot", boot)
    return made


def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put an `ssh` first on PATH that writes its arguments, one a line, and then runs `script`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/argv\n{script}\n')
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "argv"


def test_a_command_s_output_and_exit_code_are_ours(
    guest: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    argv = fake_ssh(tmp_path, monkeypatch, "echo out; echo err >&2; exit 7")
    code, text, err = typed(capfd, "shell", "--memory", "512MiB", "--", "sh", "-c", "a b; --json", "--", "x")
    assert (code, text, err) == (7, "out\n", "err\n")
    words = argv.read_text().splitlines()
    assert words[-3:] == ["root@127.0.0.1", "--", "sh -c 'a b; --json' -- x"]
    assert words[:2] == ["-F", "/dev/null"]
    for option in (
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={tmp_path / 'known_hosts'}",
    ):
        assert words[words.index(option) - 1] == "-o"
    assert "-T" in words
    assert "-t" not in words
    assert guest.booted_with == ("debian-13", "6.12", 512 << 20, None)
    assert guest.ended


def test_without_terminal_or_command_nothing_is_booted(
    guest: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    code, _, err = typed(capsys, "shell")
    assert code == 2
    assert "orchestrator shell -- uname -r" in err
    assert guest.booted_with is None


def test_on_a_terminal_ssh_is_interactive(guest: SimpleNamespace) -> None:
    argv = shell.ssh_argv(cast("Any", guest), (), terminal=True)
    assert "-t" in argv
    assert argv[-1] == "root@127.0.0.1"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kernel", "5.10"], "6.12"),
        (["--memory", "1GB"], "1GiB"),
        (["--memory", "1MiB"], "256 MiB"),
        (["nonesuch"], "debian-13"),
    ],
)
def test_bad_words_boot_nothing(
    words: list[str], says: str, guest: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = typed(capsys, "shell", *words, "--", "true")
    assert code == 2
    assert says in err
    assert guest.booted_with is None


def test_a_kernel_of_one_s_own_is_given_as_a_path(
    guest: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_ssh(tmp_path, monkeypatch, "exit 0")
    kernel = tmp_path / "bzImage"
    kernel.write_text("hello")
    code, _, err = typed(capfd, "shell", "--kernel", str(kernel), "--", "true")
    assert (code, guest.booted_with) == (2, None)
    assert "is a text file, no bzImage" in err
    kernel.write_bytes(b"\0" * 0x1FE + b"\x55\xaa\0\0HdrS")
    assert typed(capfd, "shell", "--kernel", os.path.relpath(kernel), "--", "true")[0] == 0
    assert Path(guest.booted_with[1]).samefile(kernel)
    assert guest.booted_with[1].startswith("/")


def test_a_guest_that_died_under_a_command_is_told(
    guest: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_ssh(tmp_path, monkeypatch, "exit 255")
    assert typed(capfd, "shell", "--", "sh", "-c", "exit 255")[0] == 255  # the command's own
    guest.why_dead = lambda: GuestPanicError("the guest's kernel panicked")
    code, _, err = typed(capfd, "shell", "--", "true")
    assert code == 3
    assert "panicked" in err
    assert guest.ended


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_ssh_and_the_guest(
    number: signal.Signals,
    guest: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The stand-in for ssh signals us, and then notes that it was terminated, not killed.
    script = (
        f"trap 'touch {tmp_path}/terminated; exit 0' TERM\nsleep 0.3; kill -{number.value} {os.getpid()}\n"
    )
    fake_ssh(tmp_path, monkeypatch, script + "for _ in $(seq 99); do sleep 0.05; done")
    code, _, err = typed(capfd, "shell", "--", "sleep", "300")
    assert code == 130
    assert "stopping: ending the guest" in err
    assert (tmp_path / "terminated").exists()
    assert guest.ended
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "until the process has ended"


def test_a_second_signal_does_not_disturb_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    ended = []

    def interrupted_twice() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt), stop_at_signals("now"):
        interrupted_twice()
    assert ended == [True]
    assert capfd.readouterr().err == "\nstopping: now\n"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "nor one behind it: the process ends"


def test_help_shows_where_the_command_goes() -> None:
    argv = [sys.executable, "-c", "from orchestrator.cli import main; main(['shell', '--help'])"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "[-- COMMAND...]" in text.splitlines()[0]


@pytest.mark.parametrize(
    ("where", "told"), [("nested", "only while a trial runs on it"), ("neste", "'neste' is no host")]
)
def test_a_shell_on_what_is_no_host_for_it_is_refused(
    capfd: pytest.CaptureFixture[str], where: str, told: str
) -> None:
    code, text, err = typed(capfd, "shell", "--connect", where, "--", "true")
    assert (code, text) == (2, "")
    assert told in err
