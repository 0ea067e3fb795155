from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import BLOCK_PAGES, DIRECT_MAP, SWAPPED, USER_DATA, USER_ZERO, Guest, entry, sparse_guest
from test_model_tables import address_spaces

from orchestrator.errors import BadInputError
from orchestrator.model.frames import KPF_BUDDY, KPF_LRU, KPF_SLAB, KPF_UPTODATE
from orchestrator.model.policies import POLICIES, OverSnapshot, PolicyEffect, StateView
from orchestrator.model.policies.migrate import compaction_victims
from orchestrator.model.snapshot import Region
from orchestrator.model.tables import UNKNOWN_LEVEL, TableState
from orchestrator.units import MIB

LAST_LEVEL_ONLY = ["empty", "none", "page_cache", "page_cache_first", "pressure_random", "zero_page"]
RECLAIM = ["empty_all_levels", "migrate", *LAST_LEVEL_ONLY]
NAMES = sorted([*RECLAIM, "process_exit"])
USER = {"empty", "zero", "valid", "swap", "hollow_pmd", "pmd", "pud"}


def small_guest() -> tuple[StateView, dict[str, int]]:
    """One process with a PTE table of each kind, an empty PMD table and a kernel table; their frames."""
    guest = Guest(2048)
    guest.flags[:] = 1 << KPF_BUDDY
    zero = guest.zero()
    pfn = {
        "empty": guest.table(),
        "zero": guest.table({0: entry(zero, USER_ZERO)}),
        "valid": guest.table({0: entry(guest.anon(), USER_DATA)}),
        "swap": guest.table({0: SWAPPED}),
        "kernel": guest.table({0: entry(guest.frame(), DIRECT_MAP)}),
        "kernel_empty": guest.table(),
        "orphan": guest.table(),
        "hollow_pmd": guest.table(),
    }
    pfn["pmd"] = guest.upper({0: pfn["empty"], 1: pfn["zero"], 2: pfn["valid"], 3: pfn["swap"]})
    pfn["pud"] = guest.upper({0: pfn["pmd"], 1: pfn["hollow_pmd"]})
    pfn["kernel_pmd"] = guest.upper({0: pfn["kernel"], 1: pfn["kernel_empty"]})
    pfn["kernel_pud"] = guest.upper({0: pfn["kernel_pmd"]})
    pfn["pgd"] = guest.upper({0: pfn["pud"], 300: pfn["kernel_pud"]})
    return StateView.of(guest.snapshot()), pfn


def names(
    state: StateView, pfn: dict[str, int], mask: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> set[str]:
    frames = set(state.tables.pfn[mask].tolist())
    return {name for name, frame in pfn.items() if frame in frames}


def test_all_policies_register_themselves() -> None:
    assert OverSnapshot.names() == NAMES
    for name, policy in POLICIES:
        assert policy.name == name
        assert policy.__doc__
        assert "\n" not in policy.__doc__.strip().split("\n\n")[0]
        assert policy.questions
    with pytest.raises(BadInputError, match="no policy is called 'all'"):
        OverSnapshot.named("all")
    with pytest.raises(BadInputError, match="'lru' answers no question over a snapshot") as refused:
        OverSnapshot.named("lru")
    assert refused.value.hint == f"there are: {', '.join(NAMES)}"


@pytest.mark.parametrize(
    ("name", "freed", "to_move"),
    [
        ("none", set(), set()),
        ("empty", {"empty"}, set()),
        ("zero_page", {"empty", "zero"}, set()),
        ("page_cache", {"empty", "zero"}, set()),
        ("page_cache_first", {"empty", "zero"}, USER - {"empty", "zero"}),
        ("empty_all_levels", {"empty", "hollow_pmd"}, set()),
        ("migrate", set(), USER),
        ("pressure_random", {"empty", "zero"}, USER - {"empty", "zero"}),
        ("process_exit", {*USER, "pgd"}, set()),
    ],
)
def test_what_each_policy_picks(name: str, freed: set[str], to_move: set[str]) -> None:
    state, pfn = small_guest()
    effect = OverSnapshot.named(name).apply(state)
    assert names(state, pfn, effect.freed) == freed
    assert names(state, pfn, effect.to_move) == to_move
    # Of no known level, so that no policy frees it.
    assert names(state, pfn, state.tables.level == UNKNOWN_LEVEL) == {"orphan"}


def test_tables_of_files_go_and_those_with_anything_else_stay() -> None:
    guest = Guest(1024)
    guest.flags[:] = 1 << KPF_BUDDY
    files = [guest.frame() for _ in range(3)]
    guest.flags[files] = 1 << KPF_LRU | 1 << KPF_UPTODATE
    of_files = guest.table({slot: entry(pfn, USER_DATA) for slot, pfn in enumerate(files)})
    mixed = guest.table({0: entry(files[0], USER_DATA), 1: entry(guest.anon(), USER_DATA)})
    with_swap = guest.table({0: entry(files[0], USER_DATA), 1: SWAPPED})
    pmd = guest.upper({0: of_files, 1: mixed, 2: with_swap})
    guest.upper({0: guest.upper({0: pmd})})
    state = StateView.of(guest.snapshot())
    effect = OverSnapshot.named("page_cache").apply(state)
    assert state.tables.pfn[effect.freed].tolist() == [of_files]
    assert state.tables.page_cache[np.searchsorted(state.tables.pfn, of_files)] == 3


@given(st.data(), st.integers(0, 9))
def test_files_go_first_and_no_more_than_asked(data: st.DataObject, seed: int) -> None:
    guest = Guest(1024)
    guest.flags[:] = 1 << KPF_BUDDY
    kinds = data.draw(st.lists(st.sampled_from(["files", "anon", "both", "empty"]), min_size=1, max_size=12))
    kind_of = {}
    for kind in kinds:
        pages = [guest.anon()] if kind in {"anon", "both"} else []
        if kind in {"files", "both"}:
            pages.append(guest.frame(KPF_LRU, KPF_UPTODATE))
        kind_of[guest.table({slot: entry(pfn, USER_DATA) for slot, pfn in enumerate(pages)})] = kind
    anchor = guest.table({0: entry(guest.anon(), USER_DATA)})
    pmd = guest.upper(dict(enumerate([anchor, *kind_of])))
    guest.upper({0: guest.upper({0: pmd})})
    state = StateView.of(guest.snapshot())
    policy = OverSnapshot.named("page_cache_first")
    listed = policy.apply(state, seed=seed)
    cheap = sum(kind in {"files", "empty"} for kind in kinds)
    assert listed.tables_freed == cheap
    budget = data.draw(st.integers(0, len(kinds) + 4))
    effect = policy.apply(state, seed=seed, budget_tables=budget)
    assert effect.tables_freed == min(budget, cheap)
    assert effect.tables_to_move == min(max(budget - cheap, 0), listed.tables_to_move)
    gone = {kind_of[pfn] for pfn in state.tables.pfn[effect.freed].tolist()}
    assert gone <= {"files", "empty"}


def test_50_gib_touched_once_give_100_mib_back() -> None:
    effect = OverSnapshot.named("empty").apply(StateView.of(sparse_guest()))
    assert (effect.tables_freed, effect.bytes_freed) == (25_600, 100 * MIB)


def test_blocks_are_freed_when_nothing_unmovable_is_left() -> None:
    """Bytes and blocks are different questions: three tables go, one of three blocks becomes free."""
    guest = Guest(4 * BLOCK_PAGES)
    guest.flags[:] = 1 << KPF_BUDDY
    alone, beside_slab, beside_pmd = BLOCK_PAGES, 2 * BLOCK_PAGES, 3 * BLOCK_PAGES
    for pfn in (alone, beside_slab, beside_pmd):
        guest.table(pfn=pfn)
    guest.flags[beside_slab + 1] = 1 << KPF_SLAB
    pmd = guest.table(
        {i: entry(pfn, 0x67) for i, pfn in enumerate((alone, beside_slab, beside_pmd))}, pfn=beside_pmd + 1
    )
    guest.upper({0: pmd})
    region = Region("vm0", BLOCK_PAGES, 3 * BLOCK_PAGES, BLOCK_PAGES, 3 * BLOCK_PAGES * 4096)
    state = StateView.of(guest.snapshot((region,)))
    assert state.blocks[0].pinned.all()
    effect = OverSnapshot.named("empty").apply(state)
    assert effect.tables_freed == 3
    assert effect.blocks_freed(state.blocks[0]).tolist() == [True, False, False]
    pressed = OverSnapshot.named("pressure_random").apply(state)
    assert pressed.blocks_freed(state.blocks[0]).tolist() == [True, False, False]
    assert pressed.blocks_freed_if_moved(state.blocks[0]).tolist() == [True, False, True]
    # The PMD table pointed at nothing else.
    upper = OverSnapshot.named("empty_all_levels").apply(state)
    assert upper.tables_freed == 4
    assert upper.blocks_freed(state.blocks[0]).tolist() == [True, False, True]
    moved = OverSnapshot.named("migrate").apply(state)
    assert moved.blocks_freed(state.blocks[0]).tolist() == [False, False, False]
    assert moved.blocks_freed_if_moved(state.blocks[0]).tolist() == [True, False, True]


def test_upper_levels_go_once_all_below_them_are_gone() -> None:
    guest = Guest(256)
    half = guest.upper({0: guest.table(), 1: guest.table({0: entry(guest.anon(), USER_DATA)})})
    whole = guest.upper(
        {0: guest.upper({0: guest.table()}), 5: guest.upper({0: guest.table(), 9: guest.table()})}
    )
    other = guest.upper({0: half})
    guest.upper({0: other, 1: whole})
    state = StateView.of(guest.snapshot())
    effect = OverSnapshot.named("empty_all_levels").apply(state)
    freed = set(state.tables.pfn[effect.freed].tolist())
    assert effect.tables_freed == 7
    assert whole in freed
    assert not freed & {half, other}
    assert OverSnapshot.named("empty_all_levels").apply(state, budget_tables=4).tables_freed == 4


def test_the_process_with_most_tables_ends() -> None:
    guest = Guest(256)
    small = guest.chain(guest.table({0: entry(guest.anon(), USER_DATA)}), 4)
    tables = {slot: guest.table({0: entry(guest.anon(), USER_DATA)}) for slot in range(5)}
    large = guest.upper({3: guest.upper({0: guest.upper(tables)})})
    state = StateView.of(guest.snapshot())
    freed = set(state.tables.pfn[OverSnapshot.named("process_exit").apply(state).freed].tolist())
    assert large in freed
    assert small not in freed
    assert len(freed) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_bounds_what_is_picked(name: str) -> None:
    state = StateView.of(sparse_guest(1000))
    whole = OverSnapshot.named(name).apply(state, seed=3)
    for budget in (0, 1, 100, 10_000):
        effect = OverSnapshot.named(name).apply(state, seed=3, budget_tables=budget)
        picked = effect.tables_freed + effect.tables_to_move
        if name == "migrate":  # whole blocks, or none
            assert picked <= budget
        else:
            assert picked == min(budget, whole.tables_freed + whole.tables_to_move)
    with pytest.raises(ValueError, match="less than none"):
        OverSnapshot.named(name).apply(state, budget_tables=-1)


def processes(tables_of: list[int]) -> tuple[StateView, list[set[int]]]:
    """Processes with so many last-level tables each; the frames of the tables of each but its root."""
    guest = Guest(2048)
    guest.flags[:] = 1 << KPF_BUDDY
    owned = []
    for number in tables_of:
        leaves = [guest.table({0: entry(guest.anon(), USER_DATA)}) for _ in range(number)]
        pmd = guest.upper(dict(enumerate(leaves)))
        pud = guest.upper({0: pmd})
        guest.upper({0: pud})
        owned.append({*leaves, pmd, pud})
    return StateView.of(guest.snapshot()), owned


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 200), st.integers(0, 9))
def test_pressure_takes_of_each_memory_cgroup_in_proportion(
    tables_of: list[int], budget: int, seed: int
) -> None:
    """An address space is taken for a memory cgroup: of each list the same share goes, to half a table."""
    state, owned = processes(tables_of)
    picked = OverSnapshot.named("pressure_random").apply(state, seed=seed, budget_tables=budget)
    frames = set(state.tables.pfn[picked.freed | picked.to_move].tolist())
    listed = sum(map(len, owned))
    assert len(frames) == min(budget, listed)
    # One share of all lists, each to half a table: (count - 1/2) / length of any is at most (count + 1/2) /
    # length of any other.
    taken = [(2 * len(frames & own), len(own)) for own in owned]
    for (halves, length), (others, of_other) in permutations(taken, 2):
        assert (halves - 1) * of_other <= (others + 1) * length


def test_migration_empties_whole_blocks_and_begins_no_other() -> None:
    """Pageblocks with two tables, with one, with one beside slab, and with three."""
    guest = Guest(6 * BLOCK_PAGES)
    guest.flags[:] = 1 << KPF_BUDDY
    at = [0, 5, BLOCK_PAGES, 2 * BLOCK_PAGES, *range(3 * BLOCK_PAGES, 3 * BLOCK_PAGES + 3)]
    guest.flags[2 * BLOCK_PAGES + 6] = 1 << KPF_SLAB
    far = 4 * BLOCK_PAGES
    data = entry(far + 100, USER_DATA)
    leaves = [guest.table({0: data}, pfn=pfn) for pfn in at]
    pmd = guest.table({slot: entry(pfn, 0x67) for slot, pfn in enumerate(leaves)}, pfn=far)
    pud = guest.table({0: entry(pmd, 0x67)}, pfn=far + 1)
    guest.table({0: entry(pud, 0x67)}, pfn=far + 2)  # the root, which stays, and its block with it
    state = StateView.of(guest.snapshot())
    policy = OverSnapshot.named("migrate")

    def moved(most: int) -> list[int]:
        effect = policy.apply(state, budget_tables=most)
        return sorted(state.tables.pfn[effect.to_move].tolist())

    assert moved(0) == []
    assert moved(2) == [BLOCK_PAGES]
    assert moved(3) == [0, 5, BLOCK_PAGES]
    assert moved(99) == [0, 5, BLOCK_PAGES, *at[-3:]]
    assert policy.apply(state).tables_to_move == len(at) + 2


@pytest.mark.parametrize(
    ("most", "block_pages", "expected"),
    [
        (2, 512, [512]),
        (3, 512, [0, 5, 512]),
        (99, 512, [0, 5, 512, 1536, 1537, 1538]),
        (99, 2048, []),
    ],
)
def test_compaction_victims(most: int, block_pages: int, expected: list[int]) -> None:
    """Blocks of 512 frames: one with two tables, one with one, one with slab, one with three."""
    pfn, slab = np.array([0, 5, 512, 1024, 1536, 1537, 1538]), np.array([1030])
    assert pfn[compaction_victims(pfn, slab, most, block_pages)].tolist() == expected
    assert compaction_victims(pfn, slab[:0], 7, 2048).all()


def test_pressure_depends_on_the_seed_and_on_nothing_else() -> None:
    state = StateView.of(sparse_guest(1000))
    policy = OverSnapshot.named("pressure_random")
    once = policy.apply(state, seed=1, budget_tables=100).freed
    assert (policy.apply(state, seed=1, budget_tables=100).freed == once).all()
    assert (policy.apply(state, seed=2, budget_tables=100).freed != once).any()


@given(address_spaces(), st.sampled_from(RECLAIM), st.integers(0, 9), st.none() | st.integers(0, 9))
def test_no_policy_frees_what_is_in_use(
    case: tuple[Guest, dict[int, int]], name: str, seed: int, budget: int | None
) -> None:
    guest, truth = case
    region = Region("vm0", 0, 2048, 4, 0)
    state = StateView.of(guest.snapshot((region,)))
    effect: PolicyEffect = OverSnapshot.named(name).apply(state, seed=seed, budget_tables=budget)
    tables, freed = state.tables, effect.freed
    gone = set(tables.pfn[freed].tolist())
    if name in LAST_LEVEL_ONLY:
        assert (tables.state[freed] <= TableState.ZERO_ONLY).all()
        assert {truth[pfn] for pfn in gone} <= {1}
    else:
        pointed = {value >> 12 & 0xFF_FFFF_FFFF for pfn in gone for value in guest.tables[pfn].values()}
        assert pointed <= gone
    assert not (freed & effect.to_move).any()
    assert not ((freed | effect.to_move) & tables.kernel).any()
    blocks = effect.blocks_freed(state.blocks[0])
    assert not (blocks & ~state.blocks[0].pinned).any()
    assert not (blocks & ~effect.blocks_freed_if_moved(state.blocks[0])).any()
    again = OverSnapshot.named(name).apply(state, seed=seed, budget_tables=budget)
    assert (again.freed == freed).all()
    assert (again.to_move == effect.to_move).all()
    if name == "none":
        assert not (freed | effect.to_move).any()
