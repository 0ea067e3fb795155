"""Patterns of files that are read on a host: what matches, and that none is kept."""

from __future__ import annotations

import fnmatch
import gc
import glob
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.host.reader import texts

_NAMES = ("12-3", "12-", "124-7", "1", ".12-9", "a[1]", "a1", "b*", "task")


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Each name as a file, and as a folder with files of each name in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in _NAMES:
            (root / name).write_text(name)
            for inner in _NAMES:
                path = root / "d" / name / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(inner)
        yield root


_parts = st.sampled_from(("*", "12-*", "1*", "*-3", "1*-*", "a[1]", "a[[]1]", "?", "12-3", "b[*]", "d", "**"))


@given(parts=st.lists(_parts, min_size=1, max_size=3))
def test_a_pattern_means_what_it_does_in_glob(tree: Path, parts: list[str]) -> None:
    pattern = f"{tree}/{'/'.join(parts)}"
    assert list(texts([pattern])) == [
        path
        for path in sorted(glob.glob(pattern))  # noqa: PTH207  # what it is held against
        if not os.path.isdir(path)  # noqa: PTH112  # as above
    ]


def test_a_pattern_with_the_id_of_a_process_is_not_kept(tree: Path) -> None:
    ids = range(9_173_000, 9_173_020)  # in no pattern but this test's: others come and go meanwhile

    def kept() -> set[str]:
        gc.collect()
        patterns = {str(one.pattern) for one in gc.get_objects() if type(one) is re.Pattern}
        return {one for one in patterns if any(str(pid) in one for pid in ids)}

    for pid in ids:
        texts([f"{tree}/{pid}-*", f"{tree}/d/{pid}-*/*"])
    assert kept() == set()
    for pid in ids:
        fnmatch.filter(["x"], f"{pid}-*")
    assert len(kept()) == len(ids), "what is kept is seen"
