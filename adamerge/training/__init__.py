"""Training with Lightning: the only part of adamerge that knows it."""

from adamerge.training.adaptation import Adaptation
from adamerge.training.atm import AlternatingTuning
from adamerge.training.bilevel import Bilevel
from adamerge.training.defense import DefenseAware
from adamerge.training.fit import fit
from adamerge.training.frank_wolfe import HardSteps, SoftSteps
from adamerge.training.hierarchical import Hierarchical
from adamerge.training.loop import run_steps
from adamerge.training.prodistill import BlockByBlock
from adamerge.training.schedule import Schedule

__all__ = [
    "Adaptation",
    "AlternatingTuning",
    "Bilevel",
    "BlockByBlock",
    "DefenseAware",
    "HardSteps",
    "Hierarchical",
    "Schedule",
    "SoftSteps",
    "fit",
    "run_steps",
]
