"""Run folders that came from elsewhere, given to `list`, `show`, `report`, `compare`, `blame` and `model replay`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import ClassVar, Final

import archives
import click
import numpy as np
from lxml import etree
from shown import must_be_harmless, must_be_page, must_be_prometheus

from orchestrator.cli.main import cli
from orchestrator.guest.cache import cache_dir
from targets.base import GOLDEN, TARGETS, Target, scratch

VERBS: Final = (
    ("show", "--json"),
    ("show",),
    ("compare",),
    ("compare", "--json"),
    ("blame", "--json"),
    ("model", "replay", "--budget", "64KiB", "--json"),
    ("list", "--json"),
    ("report",),
)
_TRIAL: Final = "trials/7.3-pt-reclaim-01"


@cache
def _whole() -> Path:
    """A run with two arms, of which one trial each was kept with its files."""
    folder = scratch() / "whole"
    shutil.copytree(GOLDEN / "run-version-3", folder)
    return folder


@TARGETS.register("run-folder")
class RunFolder(Target):
    """The first byte of an input says which verb, the first line which file is another, the rest what is in it."""

    name: ClassVar = "run-folder"
    executions: ClassVar = 120
    most_bytes: ClassVar = 12_000
    seconds: ClassVar = 30.0
    address_space: ClassVar = 128 << 30  # V8, which renders charts, reserves more than 64 GiB of it
    tokens: ClassVar = (
        *(
            "meta.json\n",
            "plan.json\n",
            "summary.csv\n",
            f"{_TRIAL}/events.jsonl\n",
            '"schema_version": 3',
            '"steps":',
        ),
        *(
            '"arms":',
            '"expect":',
            '"differs":',
            '"hosts":',
            '"writer":',
            "1e308",
            "nan",
            "=cmd|'/c'!A1",
            "[red]",
            "<script>",
        ),
    )

    def seeds(self) -> Iterator[bytes]:
        files = sorted(path for path in _whole().rglob("*") if path.is_file())
        for number, path in enumerate(files):
            content = path.read_bytes()
            if path.suffix == ".npz":
                with np.load(path) as archive:
                    content = archives.as_text({name: archive[name][:500] for name in archive.files})
            if len(content) < self.most_bytes:
                name = str(path.relative_to(_whole())).encode()
                yield bytes([number % len(VERBS)]) + name + b"\n" + content
        for verb in range(len(VERBS)):
            yield bytes([verb]) + b"plan.json\n" + (_whole() / "plan.json").read_bytes()
        yield b"\x07time.json\n" + b'{"wall_seconds": 12.5}'
        yield b"\x00gate.json\n{}"

    def feed(self, data: bytes) -> None:
        folder = scratch() / "results" / "r"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(_whole(), folder)
        verb = VERBS[(data[0] if data else 0) % len(VERBS)]
        name, _, content = data[1:].partition(b"\n")
        path = self._inside(folder, name)
        if path is not None:
            if path.suffix == ".npz" and not content.startswith(b"PK"):
                content = archives.as_archive(content)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run = ("--results", str(folder.parent)) if verb[0] == "list" else (str(folder),)
        said, complained = StringIO(), StringIO()
        with redirect_stdout(said), redirect_stderr(complained):
            try:
                cli.main(args=[*verb, *run], standalone_mode=False)
            except click.ClickException as error:
                must_be_harmless(error.format_message())
        must_be_harmless(said.getvalue())
        must_be_harmless(complained.getvalue())
        if verb == ("report",):
            must_be_page((folder / "report.html").read_text(encoding="utf-8"))
            etree.parse(folder / "junit.xml")
            must_be_prometheus((folder / "metrics.prom").read_text(encoding="utf-8"))

    def may_write(self) -> tuple[Path, ...]:
        """The first page keeps Vega's JavaScript in the cache for the others (`orchestrator.report.frame`)."""
        return (*super().may_write(), cache_dir())

    @staticmethod
    def _inside(folder: Path, name: bytes) -> Path | None:
        """The file that an input replaces; None where its name is none in this folder."""
        try:
            path = folder / name.decode()
            inside = path.resolve().is_relative_to(folder.resolve()) and len(name) < 200 and not path.is_dir()
        except (ValueError, OSError):
            return None
        return path if inside and path != folder else None
