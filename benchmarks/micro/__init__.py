"""Micro-benchmarks of the codec and the protocol: ``python -m pytest benchmarks/micro``."""
