"""Parts of the report by themselves: points of a chart, cells of a map, words and numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import vl_convert

from orchestrator.analysis.text import clean, clean_block, percent, seconds
from orchestrator.report import frame
from orchestrator.report.charts import MAX_POINTS, downsample
from orchestrator.report.sections.blockmap import _path


def test_downsampling_keeps_extremes_and_ends() -> None:
    points = [(float(t), float(t % 7)) for t in range(50_000)]
    points[31_234] = (31_234.0, 1e9)
    points[40_001] = (40_001.0, -5.0)
    kept = downsample(points)
    assert len(kept) <= MAX_POINTS
    assert kept == sorted(kept)
    assert {points[0], points[-1], points[31_234], points[40_001]} <= set(kept)
    assert downsample(points[:50]) == points[:50]


def test_cells_of_the_map_stand_where_their_blocks_are() -> None:
    chosen = np.zeros(40, dtype=np.bool_)
    chosen[[0, 17, 39]] = True
    assert re.findall(r"M(\d+) (\d+)", _path(chosen, 16)) == [("0", "0"), ("1", "1"), ("7", "2")]
    many = np.zeros(6400, dtype=np.bool_)
    many[14:20] = True  # over the end of the first row
    assert _path(many, 16) == "M14 0h2v1h-2zM0 1h4v1h-4z"


def test_words_and_numbers() -> None:
    assert clean("a\x1b[31mb\u202ec\n d") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c  d"
    assert len(clean("x" * 1000)) == 120
    assert clean_block("a\r\nb\x00") == "a\nb\N{REPLACEMENT CHARACTER}"
    assert percent(999_999, 1_000_000) == "99.99 %"
    assert percent(998, 1000) == "99.8 %"
    assert percent(1, 3000) == "0.033 %"
    assert percent(1, 3) == "33 %"
    assert percent(0, 3) == "0 %"
    assert percent(3, 3) == "100 %"
    assert [seconds(value) for value in (0, 4.2e-5, 0.0042, 3.21, 75)] == [
        "0.0 s",
        "42 µs",
        "4.2 ms",
        "3.2 s",
        "1 min 15 s",
    ]


def test_scripts_are_bundled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled: list[str] = []

    def bundle(*, vl_version: str) -> str:
        bundled.append(vl_version)
        return f"scripts of {vl_version}"

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    wanted = ["6.1", "6.1", "6.4"]
    assert [frame._bundle(version) for version in wanted] == [f"scripts of {version}" for version in wanted]
    assert bundled == ["6.1", "6.4"]


def test_scripts_are_bundled_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda vl_version: f"scripts of {vl_version}")
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "file"))
    assert frame._bundle("6.1") == "scripts of 6.1"
