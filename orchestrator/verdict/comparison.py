"""Arms against each other: within a run, or the same arms of two runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.stats import FEWEST, LEVEL, Difference, LostCounts, Sample, averaged, connected, differences
from orchestrator.suggestion import suggest
from orchestrator.summary import CATALOGUE, resolution_of
from orchestrator.verdict.comparability import accel_differs, alike, refuse, refuse_unlike
from orchestrator.verdict.figures import ArmFigures, RunFigures, TrialFigures
from orchestrator.verdict.hosts import are_blocks, between_runs, names_of, notes_of, why_apart

# Names the difference in how many boots had a trial that was lost, timed out or did not settle.
LOST = "trials_lost"


@dataclass(frozen=True)
class PairOfArms:
    """One arm against another. `first` is what it is compared with.

    `pairing` is `state` (trial by trial, each two from the same saved boot), `repeat` (trial by trial, with
    the same seed in the same part of the run) or `none`. `missing` says why a metric is not compared. `lost`
    is the difference in the share of boots of which a trial did not count, `lost_counts` its numbers. Where
    trials are of several hosts, `hosts` are those that have some of both arms, `notes` says what is compared
    with none, and `incomparable` why nothing is.
    """

    first: ArmFigures
    second: ArmFigures
    pairing: str
    metrics: dict[str, Difference]
    missing: dict[str, str]
    pairs: tuple[tuple[TrialFigures, TrialFigures], ...] = ()
    lost: Difference | None = None
    lost_counts: LostCounts | None = None
    hosts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    incomparable: str = ""

    @property
    def fewest(self) -> int:
        """How many boots of each arm a statement takes. Not paired, each further host takes one more."""
        return FEWEST + (max(0, len(self.hosts) - 1) if self.pairing == "none" else 0)

    @property
    def tested(self) -> int:
        """How many metrics were tested, and so share the level; losses of trials are one more."""
        lost = (self.lost,) if self.lost else ()
        return sum(one.p is not None for one in (*self.metrics.values(), *lost))

    @property
    def units(self) -> int:
        """How many pairs of boots the pairs of trials are of."""
        return len(set(units_of(self.pairs)))

    @property
    def of_boots(self) -> str:
        """The trials that count and their boots, of both arms."""
        one, other = self.first.of_boots, self.second.of_boots
        return f"{one} of each arm" if one == other else f"{one} and {other}"


@dataclass(frozen=True)
class Comparison:
    """Pairs of arms; what else is to be known of them.

    `forced` is what would have been refused. `notes` are differences that are not refused. `noise` is, for
    each metric, the difference between two arms that are the same thing; empty where no two are.
    """

    base: str
    other: str
    level: float
    seed: int
    pairs: tuple[PairOfArms, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    forced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    noise: dict[str, float] = field(default_factory=dict)


def compare_arms(
    run: RunFigures, *, base: str = "", level: float = LEVEL, seed: int = 1, force: bool = False
) -> Comparison:
    """Each arm of a run against one of them: `base`, or the first. Raises BadInputError.

    The kernel may be what arms differ in, and so may all else that a scenario says of them.
    """
    against = run.arm(base) if base else (run.arms[0] if run.arms else None)
    if against is None:
        if not run.arms:
            raise BadInputError(f"{run.run} has no trials yet", hint="wait for the first, or resume the run")
        raise BadInputError(
            f"{run.run} has no arm {base!r}", hint=suggest(base, [arm.name for arm in run.arms])
        )
    others = [arm for arm in run.arms if arm.name != against.name]
    unlike = sorted({reason for arm in others for reason in accel_differs(against, arm)})
    refuse(unlike, force=force)
    return Comparison(
        base=run.run,
        other=run.run,
        level=level,
        seed=seed,
        pairs=tuple(_pair(against, arm, level, seed, same_run=True) for arm in others),
        left_out=tuple(item for arm in run.arms for item in arm.left_out),
        forced=tuple(unlike),
        notes=tuple(notes_of(run, run.arms)),
        noise=noise_floor(run, seed),
    )


def compare_runs(
    base: RunFigures,
    other: RunFigures,
    *,
    varies: Collection[str] = (),
    level: float = LEVEL,
    seed: int = 1,
    force: bool = False,
) -> Comparison:
    """Each arm of `other` against the arm of the same name of `base`.

    `varies` are those of VARIES in which the runs are meant to differ. What else differs and would make a
    difference of its own is refused with BadInputError, or, with `force`, written into the result.
    """
    both, unlike, unknown = refuse_unlike(base, other, varies, force=force)
    unpaired = {arm.name for arm in (*base.arms, *other.arms)} - {arm.name for _, arm in both}
    notes = [f"arm {name} is in one of the runs only" for name in sorted(unpaired)]
    if base.commit != other.commit:
        notes.append(f"commit {base.commit[:12] or 'unknown'} against {other.commit[:12] or 'unknown'}")
    notes += unknown
    blocks = are_blocks(base, other, varies)
    notes += _notes_of_hosts(base, other, both)
    return Comparison(
        base=base.run,
        other=other.run,
        level=level,
        seed=seed,
        pairs=tuple(
            _pair(one, arm, level, seed, same_run=base.run == other.run, blocks=blocks) for one, arm in both
        ),
        left_out=tuple(
            (f"{run.run}/{trial}", why)
            for run in (base, other)
            for arm in run.arms
            for trial, why in arm.left_out
        ),
        forced=tuple(unlike),
        notes=tuple(notes),
        noise={**noise_floor(base, seed), **noise_floor(other, seed)},
    )


def _notes_of_hosts(
    base: RunFigures, other: RunFigures, both: Sequence[tuple[ArmFigures, ArmFigures]]
) -> Iterator[str]:
    yield from between_runs(base, other)
    for run, arms in ((base, [one for one, _ in both]), (other, [arm for _, arm in both])):
        yield from (f"{run.run}: {note}" for note in notes_of(run, arms))


def identical(run: RunFigures) -> list[tuple[ArmFigures, ArmFigures]]:
    """Pairs of arms that are the same thing under two names (A/A)."""
    return [(one, arm) for number, arm in enumerate(run.arms) for one in run.arms[:number] if alike(one, arm)]


def noise_floor(run: RunFigures, seed: int = 1) -> dict[str, float]:
    """How far identical arms are apart in each metric: the far end of the interval of their difference.

    With too few boots for an interval, the largest difference between any two of their boots, of one host;
    trials of one boot alone say nothing of that.
    """
    floor: dict[str, float] = {}
    for one, arm in identical(run):
        pair = _pair(one, arm, LEVEL, seed, same_run=True)
        for metric, found in pair.metrics.items():
            if found.interval:
                apart = max(abs(found.interval.low), abs(found.interval.high))
            else:
                trials = [trial for trial in (*one.trials, *arm.trials) if metric in trial.metrics]
                by_host = [
                    _apart([trial for trial in trials if trial.host == host], metric)
                    for host in {trial.host for trial in trials}
                ]
                known = [each for each in by_host if each is not None]
                if not known:
                    continue
                apart = max(known)
            floor[metric] = max(apart, floor.get(metric, 0.0))
    return floor


def _apart(trials: Sequence[TrialFigures], metric: str) -> float | None:
    """The largest difference between two boots; None of fewer than two."""
    means = averaged(np.array([trial.metrics[metric] for trial in trials]), [trial.boot for trial in trials])
    return float(np.ptp(means)) if len(means) > 1 else None


def _pair(
    first: ArmFigures, second: ArmFigures, level: float, seed: int, *, same_run: bool, blocks: bool = True
) -> PairOfArms:
    """`blocks`: trials are compared with those of the same host only."""
    hosts = names_of((first, second)) if blocks else ()
    blocks = len(hosts) > 1
    trials, pairing, notes = _paired(first, second, same_run=same_run, blocks=blocks)
    incomparable = why_apart(first, second) if blocks else ""
    samples: dict[str, Sample | LostCounts] = {}
    missing: dict[str, str] = {}
    for metric in CATALOGUE:
        if not metric.unit or metric.given:
            continue
        resolution = max(resolution_of(metric, arm.does) for arm in (first, second))
        sample = _sample(
            first, second, trials if pairing != "none" else None, metric.name, resolution, blocks=blocks
        )
        if sample:
            samples[metric.name] = sample
        else:
            missing[metric.name] = incomparable or _why_missing(first, second, metric.name, blocks=blocks)
    counts = _lost(first, second, hosts if blocks else ())
    # Where both were tried on no host that is the same, losses are as little a difference between arms.
    tested = {LOST: counts} if counts.by_host or not blocks else {}
    found = differences({**samples, **tested}, level=level, seed=seed)
    lost = found.pop(LOST, None)
    if blocks and pairing == "none" and not incomparable:
        notes = (*notes, *_alone(first, second))
    common = {trial.host for trial in first.trials} & {trial.host for trial in second.trials}
    return PairOfArms(
        first,
        second,
        pairing,
        found,
        missing,
        tuple(trials),
        lost,
        counts,
        hosts=tuple(sorted(common)) if blocks else (),
        notes=notes,
        incomparable=incomparable,
    )


def _alone(first: ArmFigures, second: ArmFigures) -> Iterator[str]:
    """Trials that are compared with none, for want of one of the other arm on their host."""
    for arm, other in ((first, second), (second, first)):
        hosts = {trial.host for trial in other.trials}
        left = [trial.host for trial in arm.trials if trial.host not in hosts]
        if left:
            names = ", ".join(dict.fromkeys(left))
            yield (
                f"{len(left)} of {len(arm.trials)} trials of {arm.name} are compared with none: "
                f"no trial of {other.name} ran on {names}"
            )


def _sample(
    first: ArmFigures,
    second: ArmFigures,
    pairs: Sequence[tuple[TrialFigures, TrialFigures]] | None,
    metric: str,
    resolution: float,
    *,
    blocks: bool,
) -> Sample | None:
    """A metric in both arms; None where one has no reading, or no pair or no host has one in both."""
    hosts = None
    if pairs is None:
        read = [[trial for trial in arm.trials if metric in trial.metrics] for arm in (first, second)]
        if blocks:
            common = {trial.host for trial in read[0]} & {trial.host for trial in read[1]}
            read = [[trial for trial in trials if trial.host in common] for trials in read]
            hosts = _both([trial.host for trial in trials] for trials in read)
        values = [trial.metrics[metric] for trial in read[0]], [trial.metrics[metric] for trial in read[1]]
        boots = _both([trial.boot for trial in trials] for trials in read)
    else:
        whole = [pair for pair in pairs if all(metric in trial.metrics for trial in pair)]
        values = [a.metrics[metric] for a, _ in whole], [b.metrics[metric] for _, b in whole]
        units = tuple(map(str, units_of(whole)))
        boots = units, units
    if not (values[0] and values[1]):
        return None
    return Sample(tuple(values[0]), tuple(values[1]), pairs is not None, resolution, boots, hosts)


def _both(of_arms: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first, second = map(tuple, of_arms)
    return first, second


def units_of(pairs: Sequence[tuple[TrialFigures, TrialFigures]]) -> tuple[int, ...]:
    """The unit of each pair of trials: those that share a boot are one."""
    return connected([(one.boot, other.boot) for one, other in pairs])


def _lost(first: ArmFigures, second: ArmFigures, hosts: Sequence[str]) -> LostCounts:
    def counts(host: str | None = None) -> tuple[int, int, int, int]:
        one, other = (
            {boot for boot, on in arm.boot_hosts.items() if host in {None, on}} for arm in (first, second)
        )
        return len(one & first.lost_boots), len(one), len(other & second.lost_boots), len(other)

    return LostCounts(*counts(), hosts=tuple(map(counts, hosts)))


def _paired(
    first: ArmFigures, second: ArmFigures, *, same_run: bool, blocks: bool
) -> tuple[list[tuple[TrialFigures, TrialFigures]], str, tuple[str, ...]]:
    """Trials of one repeat belong together when they had one seed and, where guests were saved, one state.

    Within a run, a repeat is also a stretch of time in which each arm ran once. Of two runs, only trials
    from the same saved state are pairs. Trials of two hosts that are blocks never are; where that takes more
    pairs than it leaves, there is more to be known from trials that are not paired.
    """
    by_repeat = {trial.repeat: trial for trial in first.trials}
    of_a_repeat = [
        (one, trial)
        for trial in second.trials
        if (one := by_repeat.get(trial.repeat)) and one.seed == trial.seed
    ]
    pairs = [(one, trial) for one, trial in of_a_repeat if not blocks or one.host == trial.host]
    apart = len(of_a_repeat) - len(pairs)
    if apart > len(pairs):
        return [], "none", ()
    notes = (f"{apart} of {len(of_a_repeat)} pairs ran on two hosts and are none",) if apart else ()
    if pairs and all(one.state and one.state == trial.state for one, trial in pairs):
        return pairs, "state", notes
    if pairs and same_run:
        return pairs, "repeat", notes
    return [], "none", ()


def _why_missing(first: ArmFigures, second: ArmFigures, metric: str, *, blocks: bool) -> str:
    for arm in (first, second):
        if not arm.trials:
            return f"no trial of {arm.name} counts"
        if not arm.values(metric):
            why = arm.gaps.get(metric, "")
            return f"not measured in {arm.name}" + (f": {why}" if why else "")
    return f"no {'host' if blocks else 'pair of trials'} has a reading in both"
