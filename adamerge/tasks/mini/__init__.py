"""The embedded suite of eight drawn tasks."""

from adamerge.tasks.mini.suite import CLASSES, Mini, render

__all__ = ["CLASSES", "Mini", "render"]
