"""Plays faults, prints a table, and writes what came of each: `python tests/faults [NAME...]`.

Without a name all are played, two at once; what came of those that are not played again stays in the result
file. `--kills N` kills runs of the quickstart in its place.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from campaign.cold_kills import ColdKills
from campaign.fault import GROUPS, load_faults
from campaign.run import Campaign, play_one, table
from campaign.warm_kills import WarmKills


def main() -> int:
    """0 where all that was played was survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="faults to play; those of a group by its name"
    )
    parser.add_argument("--list", action="store_true", help="list the faults, and play none")
    parser.add_argument("--short", action="store_true", help="only those that are part of `tox`")
    parser.add_argument("--at-once", type=int, default=2, help="so many side by side (default: 2)")
    parser.add_argument("--patience", type=float, default=1, help="on a busy machine: deadlines times this")
    parser.add_argument("--work", type=Path, help="a folder for caches and runs, that is kept")
    parser.add_argument("--cache", type=Path, help="one cache for all, not copies of it; implies --at-once 1")
    parser.add_argument("--result", type=Path, help="the file for what came of each fault")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("FOLDER", "CACHE"), help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, metavar="N", help="kill runs of the quickstart until N were hit")
    parser.add_argument(
        "--cold", action="store_true", help="with --kills: of first runs, from ./bootstrap in a new clone on"
    )
    parser.add_argument("--most", type=int, default=1000, help="so many kills in this call; the next goes on")
    parser.add_argument("--resumes", type=int, default=10, help="so many of the killed are resumed")
    parser.add_argument("--seed", type=int, default=17, help="of the moments of kills (default: 17)")
    words = parser.parse_args()
    # What is ignored here stays so in the runs that it is sent to, unless there is a handler: a shell has
    # what it runs in the background ignore SIGINT, and nohup(1) SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    if words.kills:
        if not (words.work and words.result):
            parser.error("--kills needs --work and --result, to go on with")
        kills = (
            ColdKills(words.work, words.result, words.seed)
            if words.cold
            else WarmKills(words.work, words.result, words.seed, words.resumes)
        )
        return 0 if kills.go_on(words.kills, words.most) else 1
    faults = load_faults()
    unknown = [name for name in words.names if name not in faults and name not in GROUPS]
    if unknown:
        parser.error(f"there is no fault {', '.join(unknown)}: see --list")
    chosen = [one for one in faults.values() if not words.names or {one.name, one.group} & {*words.names}]
    chosen = [one.patiently(words.patience) for one in chosen if one.short or not words.short]
    if words.list:
        for one in chosen:
            print(f"{one.name}: {one.what}; when: {one.when}")  # noqa: T201  # a program for people
        return 0
    if words.one:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is broken is put right all the same
        return play_one(chosen[0], *words.one)
    campaign = Campaign(
        words.work, words.cache, 1 if words.cache else words.at_once, words.result, words.patience
    )
    rows = campaign.play(chosen)
    print(table(rows))  # noqa: T201  # as above
    return 0 if all(row["survived"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
