"""Benchmarks of Fullduplex and its peers: ``python -m benchmarks --help``.

Linux only: processes are pinned with ``taskset``, timed with per-process CPU clocks, and looked at
through ``/proc``.
"""
