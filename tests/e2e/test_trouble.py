"""What goes wrong with guests, and with the orchestrator itself."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from driver import ROOT, Orchestrator, end, runs, wait_for_line, wait_for_step

SCENARIO = """\
version: 1
name: trouble
guest: debian-13
start: {start}
machine: {{memory: 512MiB, vcpus: 1}}
arms: {{only: {{kernel: "{kernel}"}}}}
steps:
{steps}
"""


def scenario(folder: Path, *steps: str, kernel: str = "6.12", start: str = "warm") -> Path:
    """A small scenario in a file."""
    path = folder / "trouble.yaml"
    path.write_text(
        SCENARIO.format(kernel=kernel, start=start, steps="\n".join(f"  - {step}" for step in steps))
    )
    return path


def test_a_panic_ends_the_trial_and_is_told(orchestrator: Orchestrator, tmp_path: Path) -> None:
    crash = 'exec: {argv: [sh, -c, "sleep 3; echo c > /proc/sysrq-trigger"], timeout: 60s}'
    finished = orchestrator.run(scenario(tmp_path, "wait: {time: 2s}", crash))
    assert finished.code == 3, finished.err
    assert "Kernel panic - not syncing" in finished.err
    assert "sysrq" in finished.err, "the console's tail is missing"
    assert "next:" in finished.err
    (trial,) = orchestrator.show()["trials"]
    assert trial["outcome"] == "panic"
    assert trial["metrics"]["guest_page_table_bytes_peak"] > 0, "what was sampled is lost"


FAULTS = """\
version: 1
name: faults
guest: debian-13
boots: 1
machine: {memory: 512MiB, vcpus: 1}
arms: {killed: {kernel: "6.12"}, stopped: {kernel: "6.12"}, forged: {kernel: "6.12"}, reset: {kernel: "6.12"}}
steps:
  - wait: {time: 3min}
    in: killed
  - wait: {time: 4min}  # arms that are alike would start from boots of their own
    in: stopped
  - exec: {argv: [sh, -c, "echo 'Kernel panic - not syncing: forged' | tee /dev/kmsg > /dev/console"]}
    in: forged
  - exec: {argv: [sh, -c, "sed 's/^PageTables: */&18014398509/' /proc/meminfo > /run/forged"]}
    in: forged
  - exec: {argv: [mount, --bind, /run/forged, /proc/meminfo]}
    in: forged
  - wait: {time: 3s}
    in: forged
  - exec: {argv: [sh, -c, "(echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &"]}
    in: reset
"""


def test_what_ended_a_guest_is_reported_and_what_only_looks_so_is_not(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    path, log = tmp_path / "faults.yaml", tmp_path / "log"
    path.write_text(FAULTS)
    process = orchestrator.start(path, log)
    signals = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
    while signals:  # in the order that the plan has them
        arm = wait_for_step(orchestrator.results, signals, 300)
        time.sleep(2)  # some samples
        (qemu,) = orchestrator.processes("qemu-system")
        os.kill(qemu, signals.pop(arm))
    assert process.wait(300) == 3, log.read_text()
    trials = {trial["arm"]: trial for trial in orchestrator.show()["trials"]}
    assert {arm: trial["outcome"] for arm, trial in trials.items()} == {
        "killed": "lost",
        "stopped": "lost",
        "forged": "completed",
        "reset": "lost",
    }
    said = log.read_text()
    assert "QEMU was killed by SIGKILL" in said
    assert "a signal has stopped QEMU (SIGSTOP)" in said
    assert "the guest reset itself" in said
    peak = "guest_page_table_bytes_peak"
    assert 0 < trials["forged"]["metrics"][peak] < 512 << 20, "of what came before it was forged"
    assert trials["killed"]["metrics"][peak] > 0, "what was sampled is lost"


def test_a_guest_that_loses_ssh_is_lost_but_not_its_samples(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    cut = (
        'exec: {argv: [sh, -c, "systemctl stop ssh.socket ssh; (sleep 3; pkill -9 sshd) >/dev/null 2>&1 &"]}'
    )
    finished = orchestrator.run(scenario(tmp_path, cut, "wait: {time: 5min}"))
    assert finished.code == 3, finished.err
    assert "the guest does not answer on ssh any more, though QEMU and passt run" in finished.err
    assert "next:" in finished.err
    (trial,) = orchestrator.show()["trials"]
    assert trial["outcome"] == "lost"
    assert trial["metrics"]["guest_page_table_bytes_peak"] > 0, "what was sampled is lost"


def test_a_guest_that_never_boots_shows_its_console(orchestrator: Orchestrator, tmp_path: Path) -> None:
    guests = tmp_path / "guests"
    guests.mkdir()
    for folder in ("workloads", "playbooks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (guests / "programs").symlink_to(ROOT / "guests" / "programs")
    text = (ROOT / "guests" / "debian-13.yaml").read_text()
    # The initrd waits for a root file system that does not come.
    broken = text.replace("root=/dev/vda rw quiet", "root=/dev/vdz rw rootdelay=600") + "boot_timeout: 20s\n"
    assert broken.count("vdz") == 1
    (guests / "debian-13.yaml").write_text(broken)
    finished = orchestrator.run(scenario(tmp_path, "wait: {time: 1s}"))
    assert finished.code == 3, finished.err
    found = re.search(r"did not answer on ssh within (\d+) s", finished.err)
    assert found, finished.err
    assert 20 <= int(found[1]) <= 3 * 20 + 5, "time waited for a CPU is not counted, within bounds"
    assert "initramfs" in finished.err or "Begin:" in finished.err
    assert orchestrator.show()["trials"][0]["outcome"] == "boot-timeout"


@pytest.mark.parametrize(
    ("start", "moment"), [("cold", "boot"), ("cold", "set up"), ("warm", "restore"), ("warm", "step 1 of 1")]
)
def test_ctrl_c_at_any_moment(orchestrator: Orchestrator, tmp_path: Path, start: str, moment: str) -> None:
    log = tmp_path / "log"
    process = orchestrator.start(scenario(tmp_path, "wait: {time: 5min}", start=start), log)
    wait_for_line(log, moment, 200)
    time.sleep(0.5)
    assert end(process, signal.SIGINT) == 130, log.read_text()
    shown = orchestrator.show()
    assert shown["status"] == "interrupted"
    assert [trial["outcome"] for trial in shown["trials"]] == ["interrupted"]


def test_a_private_umask_and_an_output_that_takes_nothing(orchestrator: Orchestrator, tmp_path: Path) -> None:
    """passt gets to its folder all the same, and meta.json says what the caller got."""
    process = orchestrator.start(scenario(tmp_path, "wait: {time: 1s}"), Path("/dev/full"), umask=0o077)
    assert process.wait(300) == 3
    shown = orchestrator.show()
    assert (shown["status"], [trial["outcome"] for trial in shown["trials"]]) == ("completed", ["completed"])
    (meta,) = orchestrator.results.glob("*/meta.json")
    said = json.loads(meta.read_text())
    assert (said["exit_code"], said["error"]) == (3, "standard output: No space left on device")


def test_kill_9_leaves_a_readable_run_and_clean_removes_the_rest(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    path = scenario(tmp_path, "wait: {time: 10min}")
    survivor_log, victim_log = tmp_path / "survivor", tmp_path / "victim"
    survivor = orchestrator.start(path, survivor_log)
    victim = orchestrator.start(path, victim_log)
    try:
        wait_for_line(victim_log, "step 1 of 1", 400)
        wait_for_line(survivor_log, "step 1 of 1", 400)
        time.sleep(3)  # some samples
        assert end(victim, signal.SIGKILL) == -signal.SIGKILL

        # Exactly what the victim left, and nothing of the survivor.
        (leftover,) = orchestrator.call("clean", "--dry-run", "--json").json["leftovers"]
        assert leftover["owner"]["pid"] == victim.pid
        assert {one["name"].split(".")[0] for one in leftover["processes"]} >= {"qemu-system-x86_64", "passt"}
        assert all(runs(one["pid"]) for one in leftover["processes"])

        # The run folder is valid and says how far it came.
        directory = Path(leftover["owner"]["run_dir"])
        for file in directory.glob("*.json"):
            json.loads(file.read_text())
        shown = orchestrator.show(directory.name)
        assert shown["status"] == "killed"
        assert shown["trials"][0]["metrics"]["guest_page_table_bytes_peak"] > 0, "what was sampled is lost"

        (cleaned,) = orchestrator.call("clean", "--json").json["leftovers"]
        assert cleaned["folder"] == leftover["folder"]
        assert not Path(leftover["folder"]).exists()
        assert not [one for one in leftover["processes"] if runs(one["pid"])]
        assert orchestrator.call("clean", "--dry-run", "--json").json["leftovers"] == []
        assert survivor.poll() is None, survivor_log.read_text()
    finally:
        victim.kill()
        assert end(survivor, signal.SIGTERM) == 130, survivor_log.read_text()


def test_doctor_says_what_this_machine_can_do(orchestrator: Orchestrator) -> None:
    finished = orchestrator.call("doctor", "--json")
    told = finished.json
    assert finished.code == (0 if told["ok"] else 3)
    assert told["accel"] in {"kvm", "tcg"}
    assert told["second_level"] in {"EPT", "NPT", "none"}
    assert all(check["fix"] for check in told["checks"] if check["level"] == "bad")
