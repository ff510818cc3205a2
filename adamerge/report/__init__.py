"""Tables and pictures of finished runs. Needs no torch."""
