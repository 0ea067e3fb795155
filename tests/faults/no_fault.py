"""No fault at all: what the others are held against."""

from campaign.fault import Expected, Fault

FAULTS = [
    Fault(
        "none",
        "none",
        "nothing is broken",
        "-",
        Expected(0, "completed", seconds=120),
        steps=("wait: {time: 2s}", "snapshot: {label: only}"),
    )
]
