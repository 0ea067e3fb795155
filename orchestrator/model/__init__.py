"""Pure functions over what was read: page tables, blocks, policies. No I/O, no clock, no randomness
that is not seeded by the caller."""
