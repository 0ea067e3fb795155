"""How a trial comes by its guest, on a host that is open: booted, or from a saved state."""
