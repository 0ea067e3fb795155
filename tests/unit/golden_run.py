"""A small run folder of each version that is read, as data, and the figures that all of them have.

`python tests/unit/golden_run.py` writes `golden/run-version-N` of the version that the package writes, by the
real writer. A folder is never written again: it is what that version wrote. It records the figures of the
oldest one where they are not recorded: where they change on purpose, remove `golden/run-figures.json` first.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
FIGURES = GOLDEN / "run-figures.json"
REPEATS = 6  # 5 are the least that can be compared
EXPECT: list[dict[str, object]] = [
    {"metric": "guest_page_table_bytes_end", "arm": "7.3-pt-reclaim", "at_most": 1048576.0},
    {"metric": "unplug_shortfall_bytes", "arm": "7.3-pt-reclaim", "versus": "6.12", "at_most": -1048576.0},
    {"metric": "unplug_outcome", "arm": "6.12", "one_of": ["done", "partial"]},
]
MARK = {"t_ns": 55_000_000_000, "event": "mark", "label": "loaded"}
MADE_UP = {
    "started_at": "2026-01-01T12:00:00+00:00",
    "finished_at": "2026-01-01T12:30:00+00:00",
    "writer": {"pid": 1, "started_ticks": 1, "boot_id": "0" * 8, "hostname": "made-up"},
}


def kept() -> list[Path]:
    """The folders, oldest version first."""
    return sorted(GOLDEN.glob("run-version-*"))


def write() -> None:
    """Write the folder of the version that the package writes, unless it is there."""
    from synthetic_run import write_run

    from orchestrator.summary.files import refresh

    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), "golden", repeats=REPEATS, jitter=40, expect=EXPECT)
        for trial in (run / "trials").iterdir():
            with (trial / "events.jsonl").open("a", encoding="utf-8") as events:
                events.write(json.dumps(MARK) + "\n")
        refresh(run)
        for trial in (run / "trials").iterdir():
            if not trial.name.endswith("-01"):  # of the others their rows are enough
                shutil.rmtree(trial)
        meta = json.loads((run / "meta.json").read_text(encoding="utf-8")) | MADE_UP
        (run / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        there = GOLDEN / f"run-version-{meta['schema_version']}"
        if not there.exists():
            shutil.copytree(run, there)


def figures(directory: Path) -> dict[str, Any]:
    """Summaries, expectations, attribution and comparison of a run: numbers and names, no sentences."""
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.export.document import RunDocument
    from orchestrator.export.older_keys import with_older_keys
    from orchestrator.store import open_run

    analysis = RunAnalysis.of(open_run(directory))
    # Recorded under the names of the oldest version.
    document = with_older_keys("show", RunDocument.of_run(analysis).as_json())
    trials = {trial.pop("trial"): trial for trial in document["trials"]}
    for name, trial in trials.items():
        tables = ("policies", "snapshots", "blame") if name.endswith("-01") else ()
        of_each = ("arm", "repeat", "outcome", "metrics", "moments", "kernel_release", "start", "state")
        trials[name] = {key: trial[key] for key in (*of_each, *tables)}
    asked = ("expect", "confusion", "attribution", "foretold")
    found = {"trials": trials, **{key: document[key] for key in asked}}
    found["comparison"] = compared(directory)
    plain: dict[str, Any] = without_sentences(found)
    return plain


def compared(directory: Path) -> Any:
    """What `compare --json` prints of the run's arms."""
    from contextlib import redirect_stdout, suppress
    from io import StringIO

    from orchestrator.cli import main

    said = StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main(["compare", str(directory), "--json"])
    return json.loads(said.getvalue())["comparisons"][0]["pairs"]


def without_sentences(value: Any) -> Any:
    """Without texts of several words, which may be worded anew."""
    if isinstance(value, dict):
        return {key: without_sentences(one) for key, one in value.items() if not is_sentence(one)}
    if isinstance(value, list):
        return [without_sentences(one) for one in value if not is_sentence(one)]
    return value


def is_sentence(value: object) -> bool:
    return isinstance(value, str) and " " in value


if __name__ == "__main__":
    write()
    if not FIGURES.exists():
        FIGURES.write_text(json.dumps(figures(kept()[0]), indent=1, sort_keys=True) + "\n", encoding="utf-8")
