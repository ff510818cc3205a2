"""Routing by the image: which task, or which few, an image may be of, where nobody says."""
