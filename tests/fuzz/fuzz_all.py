"""All targets, fuzzed by coverage: `tox -e fuzz`. Prints what was run, and keeps the input of every fault.

    python tests/fuzz/fuzz_all.py [--targets A,B] [--times 10] [--seed S] [--into DIR] [--keep FILE.json]

Each target has a process of its own, which libFuzzer (of atheris) drives: the package is instrumented, an
input that reaches what none has reached is kept, and others are made from it. A kind of fault is told once,
and fuzzing goes on; a process that ends by it, or takes longer than ten minutes for an input, is one as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import atheris

# numba compiles functions of these, which have no room for the calls that instrumentation puts into them.
_COMPILED = ("compiled", "guest_tables", "jit", "policies", "pressure", "replay", "tlb_walk")

with atheris.instrument_imports(
    include=["orchestrator"],
    exclude=["orchestrator.store.machine_code", *(f"orchestrator.model.{name}" for name in _COMPILED)],
    enable_loader_override=False,
):
    import oracle
    from targets.base import ROOT, TARGETS, Target

    TARGETS.names()

import mutations

MOST_SECONDS_OF_ONE: Final = 600
_DONE: Final = re.compile(r"^Done (\d+) runs in \d+ second", re.MULTILINE)
_STEP: Final = re.compile(r"^#(\d+)\t\S+ +cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)


def main() -> int:
    """Fuzz; 1 where an input showed a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default="", help="names with commas between them; else all")
    parser.add_argument("--times", type=float, default=1.0, help="as many executions times this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=0, help="at most so long for a target; else no bound")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once")
    parser.add_argument("--into", type=Path, help="where faults and corpora go; else a new folder")
    parser.add_argument("--keep", type=Path, help="a JSON file for what was run")
    asked = parser.parse_args()
    names = asked.targets.split(",") if asked.targets else TARGETS.names()
    into = asked.into or Path(tempfile.mkdtemp(prefix="orchestrator-fuzz-"))
    ran: dict[str, dict[str, Any]] = {}
    for one in _side_by_side(names, asked, into):
        ran[one["target"]] = one
        print(_line(one), flush=True)  # noqa: T201
        if asked.keep:
            kept = {**_targets_of(asked.keep), **ran}
            document = {"conditions": _conditions(), "targets": [kept[name] for name in sorted(kept)]}
            asked.keep.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    faults = sum(len(one["faults"]) for one in ran.values())
    total = sum(one["executions"] for one in ran.values())
    print(f"{total:,} executions of {len(ran)} targets, {faults} faults; inputs: {into}")  # noqa: T201
    return 1 if faults else 0


def _side_by_side(names: Sequence[str], asked: argparse.Namespace, into: Path) -> Iterator[dict[str, Any]]:
    """Fuzz targets, each in a child, so many at once; what came of each, as it ends."""
    waiting, running = list(names), dict[int, tuple[str, int, float]]()
    while waiting or running:
        while waiting and len(running) < asked.jobs:
            name = waiting.pop(0)
            executions = max(1, round(TARGETS[name].executions * asked.times))
            running[_child(name, executions, asked, into / name)] = name, executions, time.monotonic()
        child, status, used = os.wait4(-1, 0)
        if child in running:
            name, executions, began = running.pop(child)
            seconds = time.monotonic() - began
            yield _outcome(name, executions, asked.seed, into / name, status, used, seconds)


def _child(name: str, executions: int, asked: argparse.Namespace, into: Path) -> int:
    """A process that fuzzes a target, and ends with libFuzzer."""
    into.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            with (into / "log.txt").open("wb") as sink:
                os.dup2(sink.fileno(), 1)
                os.dup2(sink.fileno(), 2)
            fuzz(name, executions, asked, into)
        except BaseException:  # noqa: BLE001  # a child that goes on would fuzz the other targets, too
            traceback.print_exc()
        os._exit(3)
    return child


def _outcome(  # noqa: PLR0917  # as wait4(2) and the list of those that run have them
    name: str, asked: int, seed: int, into: Path, status: int, used: resource.struct_rusage, seconds: float
) -> dict[str, Any]:
    """What came of a process, by its log and the faults that it kept."""
    said = (into / "log.txt").read_text(encoding="utf-8", errors="replace")
    steps, done = _STEP.findall(said), _DONE.search(said)
    faults = [json.loads(path.read_text()) for path in sorted(into.glob("*.json"))]
    if os.waitstatus_to_exitcode(status) != 0 or not done:
        inputs = sorted(path.name for path in into.glob("ended-*"))
        faults.append({"target": name, "kind": "ended", "where": name, "what": said[-400:], "inputs": inputs})
    return {
        "target": name,
        "asked": asked,
        "executions": int(done[1]) if done else int(steps[-1][0]) if steps else 0,
        "seed": seed,
        "commit": _commit(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "load_average": round(os.getloadavg()[2]),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_bytes": used.ru_maxrss << 10,
        "coverage_begin": int(steps[0][1]) if steps else 0,
        "coverage_end": int(steps[-1][1]) if steps else 0,
        "corpus": int(steps[-1][3]) if steps else 0,
        "faults": faults,
    }


def fuzz(name: str, executions: int, asked: argparse.Namespace, into: Path) -> None:
    """Fuzz a target in this process; does not return."""
    target = TARGETS[name]()
    corpus = into / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, whole in enumerate(target.seeds()):
        (corpus / f"seed-{number:03d}").write_bytes(whole[: target.most_bytes])
    words = into / "words"
    tokens = (*target.tokens, *mutations.HOSTILE_WORDS)
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in tokens))
    options = {
        "runs": executions, "seed": asked.seed, "max_total_time": asked.seconds,
        "max_len": target.most_bytes, "dict": words, "len_control": 0,
        "reload": 0, "timeout": MOST_SECONDS_OF_ONE, "mutate_depth": 1, "rss_limit_mb": 0,
        "artifact_prefix": f"{into}/ended-",
    }  # fmt: skip
    found = _Found(target, into)
    oracle.limit_memory(TARGETS[name].address_space)
    atheris.Setup(
        ["fuzz", *(f"-{option}={value}" for option, value in options.items()), str(corpus)],
        found.execute,
        custom_mutator=lambda data, most, chance: mutations.mutated(data, most, chance, atheris.Mutate),
        internal_libfuzzer=True,
    )
    atheris.Fuzz()


@dataclass
class _Found:
    """Faults by their names, each with its input, in a folder."""

    target: Target
    into: Path

    def __post_init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def execute(self, data: bytes) -> None:
        """Give an input to the target, and keep the fault that it shows, if it is a new one."""
        fault = oracle.execute(self.target, data)
        if fault is None or fault.name in self._seen:
            return
        self._seen.add(fault.name)
        name = hashlib.sha256(data).hexdigest()[:12]
        (self.into / f"{name}.input").write_bytes(data)
        said = {"target": self.target.name, "input": f"{name}.input", **vars(fault)}
        (self.into / f"{name}.json").write_text(json.dumps(said, indent=1))
        print(f"FAULT {fault.kind} at {fault.where}: {fault.what[:200]!a}", file=sys.stderr)  # noqa: T201


def _escaped(word: str) -> str:
    """As a dictionary of libFuzzer has it."""
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word.encode()
    )
    return "".join(plain)


def _line(one: dict[str, Any]) -> str:
    rate = one["executions"] / max(one["cpu_seconds"], 0.1)
    reached = f"coverage {one['coverage_begin']} to {one['coverage_end']}"
    faults = "".join(
        f"\n  {fault['kind']} at {fault['where']}: {fault['what'][:160]!a}" for fault in one["faults"]
    )
    return (
        f"{one['target']}: {one['executions']:,} executions, {one['cpu_seconds']:.0f} s of CPU time in "
        f"{one['seconds']:.0f} s ({rate:,.0f} a second of CPU time), {reached}, "
        f"{len(one['faults'])} faults{faults}"
    )


def _targets_of(keep: Path) -> dict[str, dict[str, Any]]:
    """What an earlier campaign wrote there, of targets that there are still."""
    if not keep.exists():
        return {}
    targets = json.loads(keep.read_text(encoding="utf-8"))["targets"]
    return {one["target"]: one for one in targets if one["target"] in TARGETS}


def _conditions() -> dict[str, Any]:
    """Those of all targets; a target has its own commit and load."""
    return {
        "python": platform.python_version(),
        "atheris": _version(),
        "cores": os.cpu_count(),
        "most_memory_bytes": oracle.MOST_MEMORY,
    }


@cache
def _commit() -> str:
    argv = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def _version() -> str:
    from importlib.metadata import version

    return version("atheris")


if __name__ == "__main__":
    sys.exit(main())
