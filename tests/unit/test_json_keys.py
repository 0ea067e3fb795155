"""docs/json.md has the keys of `--json`: those of the classes, and those that are printed."""

from __future__ import annotations

import json
from pathlib import Path

import json_keys
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.analysis.run import RunAnalysis
from orchestrator.export.document import RunDocument


def test_the_page_has_the_keys_of_the_classes() -> None:
    page = json_keys.PAGE.read_text(encoding="utf-8")
    assert page == json_keys.rendered(page), "python tests/unit/json_keys.py   writes it again"
    assert page.count("`trials[].metrics`") == 1
    assert page.count("`checks[].difference_bytes`") == 1


def test_what_is_printed_has_no_other_keys(tmp_path: Path) -> None:
    expect = [{"metric": "unplug_shortfall_bytes", "arm": "6.12", "at_most": 1.0}]
    directory = write_run(tmp_path, expect=expect)
    summary.refresh(directory)
    printed = RunDocument.of_run(RunAnalysis.open(directory)).as_json()
    assert json.loads(json.dumps(printed)) == printed
    assert not json_keys.undocumented(RunDocument, printed)
    known = set(json_keys.paths(printed))
    assert {
        "trials[].policies[].bytes_freed",
        "expect[].met",
        "attribution_check[].blocks_still_plugged",
    } <= known
