"""Plays many faults, each in a process of its own, some side by side, and keeps what came of them."""

from __future__ import annotations

import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from campaign.fault import Fault
from campaign.play import Row, play
from orchestrator.commit import program_commit
from orchestrator.guest.cache import cache_dir
from orchestrator.run.parallel import TOGETHER

_MAIN = Path(__file__).resolve().parents[1] / "__main__.py"
# Beyond its own deadlines a fault may take that long, to come to its moment and to be looked at afterwards.
_REST_SECONDS = 900.0
# What of a cache is worth a copy: without it, it would be made again.
_COPIED = ("ssh", "images", "kvm", "libvirt", "programs", "compiled", "vega")


def play_one(fault: Fault, folder: Path, cache: Path) -> int:
    """Play a fault in this process; `folder`/row.json says what came of it."""
    row = play(fault, folder, cache)
    row.commit, row.at = program_commit(), datetime.now(UTC).isoformat(timespec="seconds")
    (folder / "row.json").write_text(json.dumps(row.as_json()))
    return 0


class Campaign:
    """`work` is kept if it is given; `cache` is used by all, and else copied for each that plays at once."""

    def __init__(
        self, work: Path | None, cache: Path | None, at_once: int, result: Path | None, patience: float = 1
    ) -> None:
        self._patience = patience
        self._kept = work is not None
        # A unix socket's path has to fit below it, and `nobody` passes through.
        self._work = work or Path(tempfile.mkdtemp(prefix="faults-", dir="/var/tmp"))
        self._work.mkdir(parents=True, exist_ok=True)
        self._work.chmod(0o711)
        self._cache, self._at_once, self._result = cache, at_once, result
        self._print = threading.Lock()

    def play(self, faults: Sequence[Fault]) -> list[dict[str, Any]]:
        """What came of each, in their order."""
        waiting: queue.Queue[Fault] = queue.Queue()
        for fault in faults:
            waiting.put(fault)
        rows: dict[str, dict[str, Any]] = {}
        threads = [
            threading.Thread(target=self._play_all, args=(f"slot-{number}", waiting, rows))
            for number in range(min(self._at_once, len(faults)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not self._kept:
            shutil.rmtree(self._work, ignore_errors=True)
        return [rows[fault.name] for fault in faults]

    def _play_all(self, slot: str, waiting: queue.Queue[Fault], rows: dict[str, dict[str, Any]]) -> None:
        cache = self._cache or cache_copy(cache_dir(), self._work / slot)
        while True:
            try:
                fault = waiting.get_nowait()
            except queue.Empty:
                return
            row = self._played(fault, cache)
            with self._print:
                rows[fault.name] = row
                seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f} s"
                how = "survived" if row["survived"] else "NOT SURVIVED"
                wrong = "".join(f"\n    {one}" for one in row["wrong"])
                print(  # noqa: T201  # a program for people
                    f"{fault.name}: {how}, {row['outcome'] or '-'}, code {row['code']}, {seconds}{wrong}",
                    flush=True,
                )
                if self._result is not None:
                    write_result(self._result, [row])

    def _played(self, fault: Fault, cache: Path) -> dict[str, Any]:
        folder = self._work / f"f-{fault.name}"
        shutil.rmtree(folder, ignore_errors=True)
        if fault.own_cache:
            cache = cache_copy(cache, self._work / f"c-{fault.name}")
        argv = [*TOGETHER, sys.executable, str(_MAIN), fault.name, "--one", str(folder), str(cache)]
        argv += ["--patience", str(self._patience)]
        wrong = ""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=fault.expected.seconds + _REST_SECONDS,
            )
            wrong = done.stderr[-1000:]
        except subprocess.TimeoutExpired:
            wrong = "playing it took too long"
        if fault.own_cache:
            shutil.rmtree(cache, ignore_errors=True)
        try:
            row: dict[str, Any] = json.loads((folder / "row.json").read_text())
        except OSError:
            broken = Row(
                fault.name, fault.group, fault.what, fault.when, "", None, None, fault.expected.seconds, ""
            )
            broken.wrong.append(f"it could not be played: {wrong}")
            row = broken.as_json()
        if not self._kept or row["survived"]:
            shutil.rmtree(folder, ignore_errors=True)
        return row


def cache_copy(source: Path, target: Path) -> Path:
    """A copy of what takes long to make, without saved states: their disks name the image they lie over."""
    if target.exists():
        return target
    target.mkdir(parents=True, mode=0o755)
    for name in _COPIED:
        if (source / name).exists():
            subprocess.run(
                ["cp", "-a", "--sparse=always", "--reflink=auto", str(source / name), str(target / name)],
                check=True,
            )
    return target


def conditions() -> dict[str, Any]:
    """On what it was played."""
    with suppress(OSError):
        load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_average": load,
        "guest": "debian-13, 6.12, 512 MiB, 1 vCPU",
        "root": os.geteuid() == 0,
    }


def read_result(path: Path) -> dict[str, Any]:
    """A result file, or an empty one."""
    empty: dict[str, Any] = {"conditions": {}, "rows": [], "kills": {}, "cold_kills": {}}
    return {**empty, **json.loads(path.read_text())} if path.exists() else empty


def write_result(path: Path, rows: Iterable[dict[str, Any]] = (), **more: Any) -> None:
    """Put rows into a result file, in the place of those of the same name."""
    result = read_result(path)
    known = {row["name"]: row for row in result["rows"]} | {row["name"]: row for row in rows}
    result |= {"conditions": conditions(), "rows": list(known.values()), **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n")
    fresh.replace(path)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For a terminal."""
    head = ("fault", "when", "outcome", "code", "seconds", "left", "survived")
    lines = [
        (
            row["name"],
            row["when"],
            row["outcome"] or "-",
            "-" if row["code"] is None else str(row["code"]),
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
            left_in_words(row),
            "yes" if row["survived"] else "NO",
        )
        for row in rows
    ]
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    )
    survived = sum(bool(row["survived"]) for row in rows)
    return f"{text}\n{survived} of {len(rows)} survived"


def left_in_words(row: dict[str, Any]) -> str:
    """What was left: nothing, or of what kinds; and whether `clean` removed it."""
    if not row["left"]:
        return "nothing"
    kinds = ", ".join(sorted({one.partition(":")[0] for one in row["left"]}))
    removed = not row["left_by_clean"] and not any(one.startswith("left") for one in row["wrong"])
    return f"nothing after clean ({kinds})" if removed else kinds
