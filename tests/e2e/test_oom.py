"""A guest whose page tables fill its memory: who is killed, by the kernel's log beside what is recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from driver import ROOT, Orchestrator
from ruamel.yaml import YAML

from orchestrator.store import read_observations

ARM = "6.12-768m-none"
MIB = 1 << 20


def one_arm(folder: Path) -> Path:
    """One trial of scenarios/oom.yaml, with the kernel's log printed by the guest itself at the end."""
    yaml = YAML()
    text: Any = yaml.load(ROOT / "scenarios" / "oom.yaml")
    del text["matrix"]
    text["repeats"] = 1
    text["arms"] = {ARM: {"kernel": "6.12"}}
    text["expect"] = [one for one in text["expect"] if one.get("arm", ARM) == ARM]
    text["steps"] = [step for step in text["steps"] if ARM in step.pop("in", [ARM])]
    text["steps"].append({"exec": {"argv": ["dmesg"]}})
    path = folder / "oom.yaml"
    yaml.dump(text, path)
    return path


@dataclass(frozen=True)
class Found:
    """What one trial left, and what `show` says of it."""

    events: list[dict[str, Any]]
    document: dict[str, Any]
    folder: Path

    def named(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]

    @property
    def log(self) -> str:
        """The kernel's log, as the guest printed it."""
        (output,) = self.named("output")
        return str(output["text"])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    folder = tmp_path_factory.mktemp("oom")
    driver = Orchestrator(folder / "results")
    finished = driver.run(one_arm(folder))
    assert finished.code == 0, finished.err
    (directory,) = (folder / "results").iterdir()
    trial = directory / "trials" / f"{ARM}-01"
    events = [json.loads(line) for line in (trial / "events.jsonl").read_text().splitlines()]
    yield Found(events, driver.show(), trial)
    driver.close()


def test_the_workload_is_killed_and_the_trial_goes_on(found: Found) -> None:
    start, stop = (one for one in found.named("step.end") if one["action"] in {"start", "stop"})
    assert (start["outcome"], stop["outcome"]) == ("killed", "killed")
    assert start["message"].startswith("the OOM killer ended sparse-map, with ")
    (end,) = found.named("trial.end")
    assert end["outcome"] == "completed", end["error"]


def test_who_was_killed_is_what_the_kernel_printed(found: Found) -> None:
    printed = re.findall(r"Killed process (\d+) \((.*?)\) .*? anon-rss:(\d+)kB.* pgtables:(\d+)kB", found.log)
    kills = [one for one in found.named("oom.kill") if one["of"] == "guest"]
    assert printed
    assert [(str(one["pid"]), one["comm"]) for one in kills] == [line[:2] for line in printed]
    assert [one["anon_rss_bytes"] >> 10 for one in kills] == [int(line[2]) for line in printed]
    assert [one["page_table_bytes"] >> 10 for one in kills] == [int(line[3]) for line in printed]
    (trial,) = found.document["trials"]
    assert trial["metrics"]["guest_oom_kills"] == len(printed)


def test_page_tables_are_what_filled_it(found: Found) -> None:
    """Three sources: the kernel's log, /proc/PID/status of the process before, and /proc/meminfo."""
    owner = next(one for one in found.named("oom.kill") if one["comm"] == "sparse-map")
    assert owner["page_table_bytes"] > 400 * MIB
    assert owner["anon_rss_bytes"] < 16 * MIB, "there was next to nothing in them"
    frame = read_observations(found.folder)
    of_process = frame["source"] == f"guest_process/sparse-map:{owner['pid']}"
    sampled = frame.loc[of_process & (frame["name"] == "VmPTE"), "value"].dropna()
    assert sampled.is_monotonic_increasing
    assert 0.5 * owner["page_table_bytes"] <= sampled.iloc[-1] <= 1.01 * owner["page_table_bytes"]
    (trial,) = found.document["trials"]
    # A tick reads /proc/meminfo first, and the process grows on; behind the last one there is none.
    assert trial["metrics"]["guest_page_table_bytes_peak"] >= sampled.iloc[-2]
    assert trial["metrics"]["guest_page_table_bytes_end"] < 0.1 * owner["page_table_bytes"]


def test_it_is_the_first_sentence(found: Found) -> None:
    assert re.match(
        rf"OOM kills in the guest: \d+ with {ARM} \(sparse-map with \d+(\.\d+)? MiB of page tables",
        found.document["conclusions"][0],
    )
