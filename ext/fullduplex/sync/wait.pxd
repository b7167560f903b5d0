# cython: language_level=3
"""The compiled `fullduplex.sync.wait` has no types: between its steps no signal's handlers run."""
