"""One fuzz target to a file: what reads something that others wrote, and seeds of that."""
