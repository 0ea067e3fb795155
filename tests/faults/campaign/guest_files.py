"""A guest definition of a fault's own, and a script that runs in its guest."""

from __future__ import annotations

import base64
import shlex
from typing import TYPE_CHECKING

from driver import ROOT

if TYPE_CHECKING:
    from campaign.scene import Scene

# A step that lasts until a script of the fault has done its part in the guest, however busy that is.
ARMED = "/run/armed"
UNTIL_ARMED = f"exec: {{argv: [sh, -c, 'while [ ! -e {ARMED} ]; do sleep 0.2; done'], timeout: 3min}}"

# guest-probe waits for `all` without using its CPU, so once it has used some a snapshot has begun.
IN_SNAPSHOT = """\
p=$(pgrep -f '^/usr/local/bin/guest-probe snapshot' | head -n 1)
(read -r l </proc/$p/stat; set -- $l; began="${14} ${15}"
while read -r l </proc/$p/stat; set -- $l; [ "${14} ${15}" = "$began" ]; do :; done; %s) >/dev/null 2>&1 &
touch /run/armed
"""


def own_guest(scene: Scene, word: str, instead: str, more: str = "") -> None:
    """Have the scene's guest defined as debian-13 is, with one word of its definition replaced."""
    guests = scene.folder / "guests"
    guests.mkdir()
    for folder in ("workloads", "playbooks"):
        (scene.folder / folder).symlink_to(ROOT / folder)
    (guests / "programs").symlink_to(ROOT / "guests" / "programs")
    text = (ROOT / "guests" / "debian-13.yaml").read_text()
    assert text.count(word) == 1, f"{word!r} is in guests/debian-13.yaml {text.count(word)} times"
    (guests / "debian-13.yaml").write_text(text.replace(word, instead) + more)


def python_in_guest(source: str) -> str:
    """A shell command that has a Python program run in the guest, which outlives it."""
    code = base64.b64encode(source.encode()).decode()
    program = f"import base64; exec(base64.b64decode('{code}'))"
    return f"(python3 -c {shlex.quote(program)}) >/dev/null 2>&1 &"
