"""The stream of `guest-probe snapshot`, with the answers of page_owner in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from orchestrator.guest.snapshot import pages_on_cpu_lists
from orchestrator.guest.snapshot_probe import FILES, SnapshotProbe
from targets.base import TARGETS, Target

_FRAMES = 4_096
_ZONEINFO = b"Node 0, zone   Normal\n  pages free     77\n    cpu: 0\n              count:    12\n"


def _stream() -> bytes:
    files = b"".join(b"#file %s %d\n%s\n" % (path.encode(), len(_ZONEINFO), _ZONEINFO) for path in FILES)
    runs = np.array([[1 << 10, 4000], [1 << 26, 96]], dtype="<u8").tobytes()
    records = np.zeros(2, dtype=[("pfn", "<u8"), ("order", "<u4"), ("stack", "<u4")])
    records["pfn"], records["order"] = [5, 9], [0, 3]
    stack = b" skb_page_frag_refill+0x69/0xe0\n sk_page_frag_refill+0x1d/0x80\n"
    return (
        b"#cpu 1 2 3\n#page_owner 1\n" + files + b"#online 5\n0 1 2\n"
        b"#flags %d\n%s\n#cpu 4 5 6\n"
        % (len(runs), runs)
        + b"#stack %d\n%s\n" % (len(stack), stack)
        + b"#owners %d 0\n%s\n#cpu 7 8 9\n" % (records.nbytes, records.tobytes())
    )


class _Channel:
    def __init__(self, data: bytes) -> None:
        self._parts = iter([data[at : at + 500] for at in range(0, len(data), 500)])

    def recv(self, _most: int) -> bytes:
        return next(self._parts, b"")

    def sendall(self, data: bytes) -> None:
        assert len(data) < 1 << 20


@TARGETS.register("snapshot-stream")
class SnapshotStream(Target):
    name: ClassVar = "snapshot-stream"
    executions: ClassVar = 200_000
    most_bytes: ClassVar = 4_000
    tokens: ClassVar = (
        "#cpu 1 2 3\n",
        "#flags 16\n",
        "#online ",
        "#owners 16 0\n",
        "#stack ",
        "#file ",
        "#page_owner 1\n",
    )

    def seeds(self) -> Iterator[bytes]:
        yield _stream()
        yield _stream()[: len(_stream()) // 2]

    def feed(self, data: bytes) -> None:
        probe = SnapshotProbe(_Channel(data))
        probe.start()
        for text in probe.files().values():
            pages_on_cpu_lists(text)
        assert np.all(probe.online_blocks() >= 0)
        flags, _ = probe.flags(_FRAMES)
        assert len(flags) <= _FRAMES
        owners = probe.owners(np.flatnonzero(flags)[:100].astype(np.uint64))
        assert len(owners.evidence(_FRAMES)) == _FRAMES
        owners.callers()
