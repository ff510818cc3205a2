"""The record of a run: its journal and its results. Needs no torch."""
