"""Benchmarks: ours against the straightforward formulation, pairwise in one run, with the floor beside them."""
