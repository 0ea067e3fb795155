"""One run, read once: what its summaries and events say, for terminal, page and exports alike."""
