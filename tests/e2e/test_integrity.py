"""Contents under reclaim in a real guest: what is right is found right, and one bit that is not is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Finished, Orchestrator

# A kernel that is right does not complain: it is made to report the fault of a process (show_signal_msg() in
# arch/x86/mm/fault.c) that is called like a complaint. What a process writes into the log itself is none.
SCENARIO = """\
version: 1
name: integrity
guest: debian-13
kernel: "7.x"
machine: {vcpus: 2, memory: 1GiB}
times: ignored
arms: {sound: , flipped: }
steps:
  - start:
      workload: integrity
      set: {amount: 32MiB, options: {threads: 2, discard: mixed, beside: collapse}}
    in: sound
  - start: {workload: integrity, set: {amount: 32MiB, options: {threads: 2, inject: flip}}}
    in: flipped
  - exec: {argv: [sh, -c, "echo '<1>BUG: Bad page map in process none' > /dev/kmsg"]}
    in: flipped
  - exec: {argv: [sh, -c, "(ulimit -s 100; printf 'kernel BUG at' > /proc/self/comm; f() { f; }; f) || true"]}
    in: flipped
  - inflate: {by: 256MiB, settle: 2s}
  - stop: {workload: integrity}
expect:
  - {metric: integrity_mismatches, at_most: 0}
  - {metric: integrity_stuck_threads, at_most: 0}
  - {metric: kernel_log_complaints, at_most: 0}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Finished, Orchestrator]]:
    folder = tmp_path_factory.mktemp("integrity")
    orchestrator = Orchestrator(folder / "results")
    scenario = folder / "integrity.yaml"
    scenario.write_text(SCENARIO)
    yield orchestrator.run(scenario, "--json"), orchestrator
    orchestrator.close()


def test_one_wrong_bit_in_one_arm_is_exit_code_1(finished: tuple[Finished, Orchestrator]) -> None:
    run, orchestrator = finished
    assert run.code == 1, run.err
    shown: Any = orchestrator.show()
    met = {(one["arm"], one["expectation"].split()[0]): one["met"] for one in shown["expect"]}
    assert [key for key, good in met.items() if not good] == [
        ("flipped", "integrity_mismatches"),
        ("flipped", "kernel_log_complaints"),
    ]
    sound, flipped = (
        next(trial for trial in shown["trials"] if trial["arm"] == arm) for arm in ("sound", "flipped")
    )
    assert sound["metrics"]["integrity_checked_bytes"] > 64 << 20
    assert not [one for one in sound["findings"] if one["kind"] != "stall"]
    mismatch, complaint = (one for one in flipped["findings"] if one["kind"] != "stall")
    wrong = int(mismatch["expected"], 16) ^ int(mismatch["found"], 16)
    assert wrong.bit_count() == 1
    assert mismatch["address"] in mismatch["text"]
    assert complaint["kind"] == "kernel-log"
    assert re.search(r"kernel BUG at\[\d+\]: segfault", complaint["text"])


def test_show_and_the_report_say_where(finished: tuple[Finished, Orchestrator]) -> None:
    run, orchestrator = finished
    shown = " ".join(orchestrator.call("show", "last", "--results", str(orchestrator.results)).out.split())
    assert "flipped-01: wrong contents (integrity) " in shown
    assert " expected 0x" in shown
    page = (Path(run.json["directory"]) / "report.html").read_text()
    assert "Integrity findings" in page
    assert "kernel BUG at[" in page
