"""Static merging rules, one per file: a pool in, a pool out."""

from adamerge.rules.doge import Doge
from adamerge.rules.emr import Emr
from adamerge.rules.linear import Individual, Pretrained, TaskArithmetic, WeightAverage
from adamerge.rules.ties import Ties

__all__ = ["Doge", "Emr", "Individual", "Pretrained", "TaskArithmetic", "Ties", "WeightAverage"]
