"""Training with Lightning: the only part of adamerge that knows it."""

from adamerge.training.adaptation import Adaptation
from adamerge.training.fit import fit
from adamerge.training.loop import run_steps
from adamerge.training.schedule import Schedule

__all__ = ["Adaptation", "Schedule", "fit", "run_steps"]
