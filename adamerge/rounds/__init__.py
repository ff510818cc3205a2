"""A round: when the trained parameters are updated, and with which images."""
