"""Trials on many hosts, by Dask Distributed (docs/fleet.md).

`engine` alone imports Dask. The others say what a host can, what a trial needs, who gets which, and what
comes back.
"""
