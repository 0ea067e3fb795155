"""What the kernel counts as free, from its own words."""

from __future__ import annotations

import pytest

from orchestrator.model.kernel_free import KernelFree

# Of a guest of 6.12 that tmpfs had filled, with what is not read left out; Movable has no page.
ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 35
  pages free     2398
        boost    0
        min      109
        low      218
        protection: (0, 886, 2294, 2294, 2294)
      nr_free_pages 2398
    cpu: 0
              count:    0
Node 0, zone    DMA32
  pages free     7963
        boost    0
        min      6487
        low      8108
        protection: (0, 0, 1408, 1408, 1408)
Node 0, zone   Normal
  pages free     11108
        boost    0
        min      10298
        low      12872
        protection: (0, 0, 0, 0, 0)
Node 0, zone  Movable
  pages free     0
        boost    0
        min      32
        low      32
        protection: (0, 0, 0, 0, 0)
"""


def test_what_is_free_and_what_of_it_is_kept() -> None:
    """DMA has less than it keeps, 109 + 2,294; DMA32 keeps 6,487 + 1,408; Normal 10,298."""
    assert KernelFree.of_zoneinfo(ZONEINFO) == KernelFree(free=21469, kept=2398 + 7895 + 10298)
    assert KernelFree.of_zoneinfo(ZONEINFO * 2) == KernelFree(free=2 * 21469, kept=2 * (2398 + 7895 + 10298))


def test_memfree() -> None:
    meminfo = "MemTotal:  971040 kB\nMemFree:   761672 kB\nMemAvailable:   728348 kB\nSwapFree: 0 kB\n"
    assert KernelFree.of_meminfo(meminfo) == KernelFree(free=761672 // 4)


@pytest.mark.parametrize(
    "text", ["", "MemTotal: 5 kB\nMemAvailable: 7 kB\n", "XMemFree: 5 kB", "MemFree: x kB"]
)
def test_nothing_that_could_be_read(text: str) -> None:
    assert KernelFree.of_meminfo(text) is None
    assert KernelFree.of_zoneinfo(text) is None


@pytest.mark.parametrize("one", [KernelFree(0), KernelFree(5, 0), KernelFree(10**9, 77)])
def test_as_notes_and_back(one: KernelFree) -> None:
    assert KernelFree.of_notes({"other": "x", **one.note()}) == one


@pytest.mark.parametrize(
    "note",
    ["", "{}", "[]", "5", "null", '{"free": 5}', '{"free": "5", "kept": 1}', '{"free": 1, "kept": []}'],
)
def test_notes_of_other_versions(note: str) -> None:
    assert KernelFree.of_notes({"kernel_free": note}) is None
    assert KernelFree.of_notes({}) is None
