"""Where trials ran, of those that do not say."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.records.summary import TrialSummary


def of_known_host(summaries: tuple[TrialSummary, ...]) -> tuple[TrialSummary, ...]:
    """The same, all on the one host that some of them name: a run is on one host unless it says otherwise.

    Those that do not name it are of an older version, or ended before they had begun.
    """
    named = {one.host for one in summaries} - {""}
    if len(named) != 1:
        return summaries
    (host,) = named
    return tuple(one if one.host else replace(one, host=host) for one in summaries)
