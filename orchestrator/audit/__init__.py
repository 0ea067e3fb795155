"""What page tables hold and need on a machine as it runs: its VMs and its processes, read from outside.

Nothing is written there, and nothing is stopped.
"""
