"""Contents under reclaim: the program on this machine, its driver, logs of kernels, what is said of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Answer, FakeDomain, FakeShell
from synthetic_run import META, plan_json, write_run

from orchestrator import summary
from orchestrator.analysis.findings import finding_rows, finding_sentences
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli import main
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import CommandError, ExitCode, GuestLostError
from orchestrator.guest.boot import Guest
from orchestrator.guest.console import Console
from orchestrator.guest.kernel_log import find_complaints, read_kernel_log
from orchestrator.guest.programs import build_program
from orchestrator.records.events import TrialEnd, read_event
from orchestrator.report.page import build_report
from orchestrator.run.execute import judged as exit_code_of
from orchestrator.store import RunWriter, open_run
from orchestrator.workloads import WorkloadResult, load_workload
from orchestrator.workloads.integrity import RESULT, parse_result

WORKLOAD = Path(__file__).parents[2] / "workloads" / "integrity"
AMOUNT = 32 << 20
FIRST = "[    0.000000] Linux version 6.12.117+deb13-cloud-amd64 (debian-kernel@lists.debian.org)"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(WORKLOAD / "integrity.c", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def check(program: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the program for some seconds; what it wrote at its end."""

    def run(*words: str, seconds: float = 0.0) -> dict[str, Any]:
        result = tmp_path / "result.json"
        argv = [str(program), str(AMOUNT), "threads=2", *words]
        environment = {**os.environ, "INTEGRITY_RESULT": str(result)}
        done = subprocess.run(argv, capture_output=True, timeout=60, check=True, env=environment)
        pid = json.loads(done.stdout)["pid"]
        try:
            time.sleep(seconds)
            os.kill(pid, signal.SIGTERM)
            assert wait_for(lambda: result.exists() or None, Deadline(60), every=0.01)
        finally:
            if not result.exists():
                os.kill(pid, signal.SIGKILL)
        written: dict[str, Any] = json.loads(result.read_text())
        assert parse_result(result.read_text()).figures == written["figures"], "the driver can read it"
        return written

    return run


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["discard=mixed", "beside=both", "thp=always"]])
def test_contents_are_right_here(check: Callable[..., dict[str, Any]], words: list[str]) -> None:
    found = check(*words, seconds=0.5)
    figures = found["figures"]
    assert (figures["mismatches"], figures["stuck_threads"], found["findings"]) == (0, 0, [])
    assert figures["checked_bytes"] > 2 * AMOUNT
    assert figures["discards"] > 0 < figures["ranges_discarded"]
    assert figures["visits"] > 0
    assert figures["injected"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["inject=flip"],
        ["inject=flip", "discard=free", "beside=both"],
        ["inject=skip"],
        ["inject=skip", "discard=mixed"],
        ["inject=lose"],
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_one_wrong_byte_is_found_where_it_is(
    check: Callable[..., dict[str, Any]], words: list[str], seed: int
) -> None:
    found = check(*words, f"seed={seed}")
    assert found["figures"]["injected"] == found["figures"]["mismatches"] == 1
    (finding,) = found["findings"]
    assert finding["kind"] == "mismatch"
    assert finding["address"] == found["injected_address"]
    wrong = int(finding["expected"], 16) ^ int(finding["found"], 16)
    if "inject=flip" in words:
        assert wrong.bit_count() == 1
        byte = int(finding["address"], 16) % 8
        assert wrong & 0xFF << 8 * byte, "the address is that of the byte, not of its word"
    elif "inject=skip" in words:
        assert int(finding["expected"], 16) == 0
        assert f"what belongs at {finding['address']}, generation" in finding["text"].partition("found")[2]
    else:
        assert "generation 2), found" in finding["text"], "the one before it is still there"


@pytest.mark.slow
def test_a_thread_that_does_not_go_on_is_seen(check: Callable[..., dict[str, Any]]) -> None:
    found = check("inject=hang", "stuck_seconds=1", seconds=1.5)
    assert found["figures"]["stuck_threads"] == 1
    assert found["figures"]["longest_gap_seconds"] >= 1
    (finding,) = found["findings"]
    assert finding["kind"] == "stuck"
    assert "owner 0 has not gone on for 1." in finding["text"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["8388608", "threads=2"], "less than a group of 8 MiB for each thread"),
        ([str(1 << 30), "threads=65"], "more threads than 64"),
        ([str(AMOUNT), "threads=2", "discard=free", "inject=skip"], "MADV_FREE may leave what it discards"),
    ],
)
def test_what_it_cannot_do_it_says(program: Path, words: list[str], why: str) -> None:
    done = subprocess.run([program, *words], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert why in done.stderr.decode()


FIGURES = {"mismatches": 1, "stuck_threads": 0, "checked_bytes": 4096, "run_seconds": 2.5}
WRONG = {
    "kind": "mismatch",
    "address": "0x7000",
    "expected": "0x1",
    "found": "0x2",
    "text": "owner 0: at 0x7000",
}


def result(**changes: object) -> str:
    return json.dumps({"figures": FIGURES, "injected_address": "0x0", "findings": [WRONG], **changes})


def stopped(answer: Answer) -> WorkloadResult:
    shell = FakeShell({"pkill": "", "pgrep": 1, f"cat {RESULT}": answer})
    ending = load_workload(WORKLOAD).stop(shell, deadline=Deadline(60))
    assert [argv[0] for argv in shell.commands] == ["pkill", "pgrep", "cat"], "read once it has ended"
    return ending


def test_what_it_found_comes_when_it_is_stopped() -> None:
    assert stopped(result()) == WorkloadResult(FIGURES, (WRONG,))


def test_what_one_before_left_is_not_taken_for_what_this_one_finds() -> None:
    started = {"pid": 7, "held_bytes": 1, "threads": 8, "checked_bytes": 4096}
    shell = FakeShell({"rm": "", "env": json.dumps(started)})
    driver = load_workload(WORKLOAD, {"amount": "16MiB", "options": {"threads": 2, "inject": "flip"}})
    measured = driver.start(shell, seed=2**31 + 9, deadline=Deadline(60))
    assert measured == {name: value for name, value in started.items() if name != "pid"}
    removed, call = shell.commands
    assert removed == ["rm", "-f", RESULT]
    assert call[:4] == ["env", f"INTEGRITY_RESULT={RESULT}", "/usr/local/bin/integrity", str(16 << 20)]
    assert {"threads=2", "inject=flip", "thp=guest"} < set(call)
    assert call[-1] == "seed=9"


@pytest.mark.parametrize(
    "answer",
    [
        1,
        "",
        "[]",
        "[" * 100_000,
        result(figures=[]),
        result(figures={"mismatches": 0}),
        result(findings={}),
        result(findings=[{**WRONG, "text": 5}]),
        result(findings=[{"kind": "mismatch"}]),
        result(findings=[WRONG] * 65),
    ],
)
def test_no_result_is_not_taken_for_none_wrong(answer: Answer) -> None:
    with pytest.raises(CommandError, match="left no result"):
        stopped(answer)


@pytest.mark.parametrize(
    "line",
    [
        "BUG: Bad page map in process integrity  pte:8000000012345067 pmd:12345067",
        "BUG: Bad page state in process kworker/0:1  pfn:12345",
        "BUG: Bad page cache in process sh  pfn:12345",
        "BUG: Bad rss-counter state mm:00000000d1 type:MM_ANONPAGES val:12",
        "BUG: non-zero pgtables_bytes on freeing mm: 4096",
        "mm/pgtable-generic.c:50: bad pmd 00000000aa(8000000012345067)",
        "integrity: Corrupted page table at address 7f0012345000 Bad pagetable: 000f [#1] PREEMPT SMP NOPTI",
        "get_swap_device: Bad swap file entry 3ffffffffffff",
        "BUG: unable to handle page fault for address: ffffea0001234567",
        "BUG: KASAN: use-after-free in zap_pte_range+0x1/0x2",
        "kernel BUG at mm/memory.c:1234!",
        "Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
        "list_del corruption. prev->next should be ffff, but was 0000",
        "refcount_t: underflow; use-after-free.",
        "WARNING: CPU: 1 PID: 77 at mm/page_table_check.c:160 __page_table_check_zero+0x1/0x2",
        "WARNING: mm/rmap.c:1262 at __folio_add_rmap+0x1/0x2, CPU#1: integrity/77",
        "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
    ],
)
def test_complaints_are_told_from_the_rest(line: str) -> None:
    text = f"{FIRST}\n[   12.345678] {line}\n[   12.345679] Hardware name: QEMU\n"
    assert find_complaints(text) == ([f"[   12.345678] {line}"], [])


@pytest.mark.parametrize(
    "line",
    [
        "Out of memory: Killed process 77 (redis-server) total-vm:1kB, pgtables:4kB oom_score_adj:0",
        "WARNING: CPU: 0 PID: 1 at drivers/char/random.c:1",
        "virtio_mem virtio3: failed to unplug",
        "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
        "traps: sh[77] general protection fault ip:7f0 sp:7ff error:0 in libc.so.6",
        "mce: CPU supports 10 MCE banks",
        "systemd[1]: debugging bad pmdas is off",
    ],
)
def test_what_is_no_complaint_is_none(line: str) -> None:
    assert find_complaints(f"{FIRST}\n[   12.345678] {line}\n") == ([], [])


def test_a_stall_is_no_complaint() -> None:
    line = "[   99.1] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [integrity:77]"
    assert find_complaints(line) == ([], [line])


def guest(tmp_path: Path, dmesg: Answer, console: str = "", **domain: Any) -> Guest:
    log = Console(tmp_path / "console.log")
    log.path.write_text(console)
    parts: Any = (FakeDomain(**domain), FakeShell({"dmesg": dmesg}), log, None)
    return Guest(*parts)


BAD = "[   12.3] BUG: Bad page map in process integrity  pte:1 pmd:2"


def test_the_log_of_a_guest_that_lives(tmp_path: Path) -> None:
    log = read_kernel_log(guest(tmp_path, f"{FIRST}\n{BAD}\n{BAD}\x1b[2J\n"))
    assert (log.source, log.complaints, log.lines, log.gap) == ("dmesg", 2, (BAD, BAD), "")
    none = read_kernel_log(guest(tmp_path, f"{FIRST}\n[  1.0] fine\n"))
    assert (none.complaints, none.lines, none.gap) == (0, (), "")


@pytest.mark.parametrize(
    ("dmesg", "why"),
    [
        ("", "the kernel's log has lost its beginning"),
        ("[  900.1] fine\n" * 9, "the kernel's log has lost its beginning"),
        (1, "dmesg could not be read: dmesg ended with code 1; the console shows errors only"),
        (GuestLostError("ssh broke"), "dmesg could not be read: ssh broke; the console shows errors only"),
    ],
)
def test_a_log_that_was_not_read_is_missing_and_not_without_complaints(
    tmp_path: Path, dmesg: Answer, why: str
) -> None:
    log = read_kernel_log(guest(tmp_path, dmesg, console="booted\n"))
    assert (log.complaints, log.gap) == (None, why)


def test_what_a_dead_guest_printed_counts(tmp_path: Path) -> None:
    log = read_kernel_log(guest(tmp_path, "", console=f"{BAD}\r\n", running=False))
    assert (log.source, log.complaints, log.lines, log.gap) == ("console", 1, (BAD,), "")
    wrapped = read_kernel_log(guest(tmp_path, f"[ 900.1] fine\n{BAD}\n"))
    assert (wrapped.complaints, wrapped.gap) == (1, ""), "more may have been before: there was one at least"


S = 10**9
LOG = {"of": "guest", "source": "dmesg", "complaints": 0, "lines": [], "stall_lines": [], "gap": ""}
STARTED = {"action": "start", "outcome": "done", "workload": "integrity", "values": {"checked_bytes": 1}}
STOPPED = {"action": "stop", "outcome": "done", "workload": "integrity", "values": FIGURES}


def run_of(
    tmp_path: Path, *trials: list[tuple[str, dict[str, Any]]], outcome: str = "completed", **plan: Any
) -> Path:
    """A run with a trial of arm 6.12 for each list of events."""
    text = json.dumps(json.loads(plan_json(repeats=len(trials))) | plan)
    writer = RunWriter.create(tmp_path, "r1", text, META)
    for number, events in enumerate(trials, start=1):
        with writer.trial(f"6.12-{number:02d}") as trial:
            for second, (name, fields) in enumerate(events):
                trial.record(read_event({"t_ns": second * S, "event": name, **fields}))
            trial.record(TrialEnd(t_ns=99 * S, outcome=outcome, error="", hint=""))
    writer.finish("completed", 0)
    summary.refresh(writer.directory)
    return writer.directory


def figures(directory: Path) -> dict[str, object]:
    (one,) = summary.summarise_run(open_run(directory))
    assert one == summary.load(open_run(directory))[0], "and as it is written"
    names = (
        "integrity_checked_bytes",
        "integrity_mismatches",
        "integrity_stuck_threads",
        "kernel_log_complaints",
    )
    return {name: one.metrics.get(name, one.gaps.get(name)) for name in names}


NONE_ENDED = "no workload that checks contents was stopped: then it says what it found"
UNREAD = "the kernel's log was not read: the trial was ended before, or is of an older version"


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([], [NONE_ENDED, NONE_ENDED, NONE_ENDED, UNREAD]),
        ([("step.end", STARTED), ("kernel.log", LOG)], [NONE_ENDED, NONE_ENDED, NONE_ENDED, 0]),
        ([("step.end", STARTED), ("step.end", STOPPED), ("kernel.log", LOG)], [4096, 1, 0, 0]),
        (
            [("step.end", STARTED), ("step.end", STOPPED)] * 2 + [("kernel.log", {**LOG, "complaints": 2})],
            [8192, 2, 0, 2],
        ),
        # One that was not stopped may have found more; what the other found is not undone by that.
        ([("step.end", STARTED)] * 2 + [("step.end", STOPPED)], [4096, 1, NONE_ENDED, UNREAD]),
        (
            [
                ("kernel.log", LOG),
                ("kernel.log", {**LOG, "of": "host", "complaints": None, "gap": "it broke"}),
            ],
            [NONE_ENDED, NONE_ENDED, NONE_ENDED, "it broke"],
        ),
        (
            [
                ("kernel.log", {**LOG, "complaints": 3}),
                ("kernel.log", {**LOG, "complaints": None, "gap": "it broke"}),
            ],
            [NONE_ENDED, NONE_ENDED, NONE_ENDED, 3],
        ),
    ],
)
def test_metrics_are_what_was_found_or_missing(
    tmp_path: Path, events: list[tuple[str, dict[str, Any]]], found: list[object]
) -> None:
    assert list(figures(run_of(tmp_path, events)).values()) == found


FOUND: list[tuple[str, dict[str, Any]]] = [
    ("step.end", STARTED),
    ("finding", {"workload": "integrity", **WRONG}),
    ("step.end", STOPPED),
    (
        "kernel.log",
        {**LOG, "complaints": 1, "lines": [f"{BAD}\x1b[2J"], "stall_lines": ["soft lockup - CPU#1"]},
    ),
]


def test_where_it_was_wrong_is_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = run_of(tmp_path, FOUND)
    (one,) = summary.load(open_run(directory))
    assert [(finding.kind, finding.by) for finding in one.findings] == [
        ("mismatch", "integrity"),
        ("kernel-log", "guest"),
        ("stall", "guest"),
    ]
    assert (one.findings[0].address, one.findings[0].expected, one.findings[0].found) == (
        "0x7000",
        "0x1",
        "0x2",
    )
    with pytest.raises(SystemExit):
        main(["show", "r1", "--results", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "With 6.12, 1 page has wrong contents and 1 error is in the kernel log." in shown
    assert "6.12-01: wrong contents (integrity) owner 0: at 0x7000" in " ".join(shown.split())
    assert "\x1b[2J" not in shown
    with pytest.raises(SystemExit):
        main(["show", "r1", "--results", str(tmp_path), "--json"])
    shown_json = json.loads(capsys.readouterr().out)
    assert shown_json["trials"][0]["findings"][0]["found"] == "0x2"
    page = build_report(RunAnalysis.open(directory)).read_text()
    assert "Integrity findings" in page
    assert "owner 0: at 0x7000" in page


def test_a_run_without_findings_says_nothing_of_them(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    page = build_report(RunAnalysis.open(directory)).read_text()
    assert "Integrity findings" not in page
    assert "pages with wrong contents" not in page


WANTED = {"metric": "integrity_mismatches", "arm": "6.12", "at_most": 0}
GOOD = [("step.end", STARTED), ("step.end", {**STOPPED, "values": {**FIGURES, "mismatches": 0}})]


@pytest.mark.parametrize(
    ("trials", "outcome", "found"),
    [
        ([GOOD] * 3, "completed", "0 (the worst of 3 trials, 6.12-01)"),
        # The median of three would be 0, and a trial that timed out is in no median.
        ([GOOD, FOUND, GOOD], "completed", "1 (the worst of 3 trials, 6.12-02)"),
        ([FOUND], "timeout", "1"),
        ([GOOD, GOOD[:1]], "completed", f"not known in 6.12-02: {NONE_ENDED}"),
        ([FOUND, GOOD[:1]], "completed", "1 (the worst of 1 trials, 6.12-01)"),
        ([], "completed", "no trial of 6.12 has begun"),
    ],
)
def test_one_wrong_page_in_any_trial_is_not_as_expected(
    tmp_path: Path, trials: list[Any], outcome: str, found: str
) -> None:
    directory = run_of(tmp_path, *trials, outcome=outcome, expect=[WANTED])
    analysis = RunAnalysis.open(directory)
    (one,) = analysis.verdicts.expectation_results
    assert one.found == found
    assert one.met is found.startswith("0")
    expected = ExitCode.COMPLETED if one.met else ExitCode.EXPECTATION_FAILED
    assert exit_code_of(analysis) is expected


def test_rows_and_sentences_are_bounded() -> None:
    findings = [SimpleNamespace(kind="stall", by="guest", text="late")] * 60
    findings += [SimpleNamespace(kind="mismatch", by="integrity", text="x" * 900)] * 60
    trial = SimpleNamespace(summary=SimpleNamespace(trial="t", findings=findings))
    worst = {"integrity_mismatches": 60.0, "integrity_stuck_threads": 0.0, "kernel_log_complaints": None}
    arm = SimpleNamespace(name="a", trials=[trial], typical=worst.get)
    view: Any = SimpleNamespace(trials=[trial], arms=[arm])
    rows = finding_rows(view)
    assert len(rows) == 100
    assert [row.bad for row in rows[:60]] == [True] * 60, "what may be the host's doing comes last"
    (sentence,) = finding_sentences(view)
    assert sentence.startswith("With a, 60 pages have wrong contents. First: xxx")
    assert len(sentence) < 400
