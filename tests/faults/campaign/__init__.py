"""The campaign of faults: what a fault is, how one is played, and what it must leave (nothing)."""

import sys
from pathlib import Path

# What drives a real run is that of the end-to-end tests, and a run without a guest that of the unit tests.
sys.path += [str(Path(__file__).resolve().parents[2] / name) for name in ("e2e", "unit")]
