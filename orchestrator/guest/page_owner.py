"""Who allocated a frame, where the guest's kernel keeps that: CONFIG_PAGE_OWNER, booted with page_owner=on.

A stock kernel does not, and then network buffers are plain kernel memory (Documentation/mm/page_owner.rst).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from orchestrator.guest.stream import Stream, StreamError, number
from orchestrator.model.snapshot import I64, U8, Evidence

MOST_ASKED = 1 << 16  # some 0.1 ms each under emulation; what is left stays plain kernel memory
_MOST_STACKS = 1 << 12
_MOST_STACK_BYTES = 1 << 14
_RECORD = np.dtype([("pfn", "<u8"), ("order", "<u4"), ("stack", "<u4")])
_MOST_ORDER = 20
_NAMED = 5  # allocating functions that the notes name
# One frame of a stack: ` skb_page_frag_refill+0x69/0xe0`.
_FUNCTION = re.compile(r"^ ([A-Za-z0-9_.]{1,128})\+0x", re.MULTILINE)
_NOPROF = "_noprof"  # memory allocation profiling (6.10) put it behind the allocators' names

# The allocator's own functions say nothing of who called it.
_ALLOCATOR = re.compile(
    r"(get_page_from_freelist|prep_new_page|post_alloc_hook|__?alloc_(frozen_)?pages?|alloc_pages|"
    r"folio_alloc|__folio_alloc|get_free_pages|__get_free_pages|get_zeroed_page|___?kmalloc|kmalloc|"
    r"__kmalloc|new_slab|allocate_slab|___slab_alloc|register_early_stack)"
)
# The first that fits the whole stack counts. Functions of include/asm-generic/pgalloc.h, kernel/fork.c,
# mm/vmalloc.c, mm/sparse-vmemmap.c, net/core/{skbuff,sock,page_pool}.c.
_USES = (
    (re.compile(r"pte_alloc_one|__pte_alloc|__pmd_alloc|__pud_alloc|__p4d_alloc|pgd_alloc"), Evidence.TABLE),
    (re.compile(r"vmemmap_(alloc|populate)|sparse_add_section|section_activate"), Evidence.MEMMAP),
    # alloc_thread_stack_node() and dup_task_struct() are mostly inlined into copy_process().
    (
        re.compile(r"alloc_thread_stack|__vmalloc_node_range\w*\+\S+\n (dup_task|copy_process)"),
        Evidence.KERNEL_STACK,
    ),
    (re.compile(r"skb_|_skb\b|page_frag_refill|page_pool_|napi_alloc|netdev_alloc"), Evidence.NETWORK),
    (re.compile(r"__vmalloc|vmap_|pcpu_populate|execmem_"), Evidence.VMALLOC),
)


@dataclass(frozen=True)
class PageOwners:
    """Answers of page_owner: chunks of 2**order frames from `pfn` on, and the stacks that asked for them."""

    stacks: tuple[str, ...]
    pfn: I64
    order: I64
    stack: I64
    cut: bool = False  # the kernel broke off: reading the file can kill the reader (6.12.115 to 117)

    def evidence(self, frames: int) -> U8:
        """One Evidence per frame, shape (frames,); NONE where the stack tells nothing."""
        found = np.zeros(frames, dtype=np.uint8)
        use = np.array([_use(stack) for stack in self.stacks], dtype=np.uint8)
        for pfn, order, stack in zip(
            self.pfn.tolist(), self.order.tolist(), self.stack.tolist(), strict=True
        ):
            if stack < len(use):
                found[pfn : pfn + (1 << order)] = use[stack]
        return found

    def callers(self) -> str:
        """Who has most frames that the stack tells nothing of: `anon_pipe_write 16384, ...`."""
        frames: Counter[str] = Counter()
        for order, stack in zip(self.order.tolist(), self.stack.tolist(), strict=True):
            if stack < len(self.stacks) and _use(self.stacks[stack]) is Evidence.NONE:
                frames[_caller(self.stacks[stack])] += 1 << order
        return ", ".join(f"{name} {count}" for name, count in frames.most_common(_NAMED))


def read_owners(stream: Stream) -> PageOwners:
    """The answer to `owners`. Raises StreamError."""
    stacks: list[str] = []
    while True:
        words = (stream.line() or "").split(" ")
        if words[0] == "#stack" and len(words) == 2 and len(stacks) < _MOST_STACKS:
            size = number(words[1])
            if size > _MOST_STACK_BYTES:
                raise StreamError(f"a call stack has {size} bytes")
            stacks.append(stream.exactly(size).decode(errors="replace"))
            stream.exactly(1)
            continue
        if words[0] != "#owners" or len(words) != 3:
            raise StreamError(f"#owners was expected, not {' '.join(words)[:80]!r}")
        size = number(words[1])
        if size % _RECORD.itemsize or size > MOST_ASKED * _RECORD.itemsize:
            raise StreamError(f"the list of owners has {size} bytes")
        records = np.frombuffer(stream.exactly(size), dtype=_RECORD)
        stream.exactly(1)
        records = records[(records["order"] <= _MOST_ORDER) & (records["pfn"] < 1 << 40)]
        pfn, order, stack = (records[name].astype(np.int64) for name in ("pfn", "order", "stack"))
        return PageOwners(tuple(stacks), pfn, order, stack, cut=words[2] != "0")


def _use(stack: str) -> Evidence:
    return next((evidence for uses, evidence in _USES if uses.search(stack)), Evidence.NONE)


def _caller(stack: str) -> str:
    """The innermost function that is not the allocator's."""
    names = (name.removesuffix(_NOPROF) for name in _FUNCTION.findall(stack))
    return next((name for name in names if not _ALLOCATOR.match(name)), "unknown")
