"""Static merging rules, one per file: a pool in, a pool out."""

from adamerge.rules.linear import Individual, Pretrained, TaskArithmetic, WeightAverage
from adamerge.rules.ties import Ties

__all__ = ["Individual", "Pretrained", "TaskArithmetic", "Ties", "WeightAverage"]
