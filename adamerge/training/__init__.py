"""Training with Lightning: the only part of adamerge that knows it."""

from adamerge.rounds.schedule import Schedule
from adamerge.training.adaptation import Adaptation
from adamerge.training.fit import fit
from adamerge.training.run_steps import run_steps

__all__ = ["Adaptation", "Schedule", "fit", "run_steps"]
