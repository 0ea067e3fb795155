"""Dask Distributed, and nothing else of this program that imports it.

What travels is text, numbers and bytes. A task is `orchestrator.fleet.unit.run_unit`, by its name.
"""
