"""Merged models in the forms that other programs load."""
