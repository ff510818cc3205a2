"""Static merging rules, one per file: task vectors in, tensor by tensor, task vectors or one delta out."""

from adamerge.rules.doge import Doge
from adamerge.rules.emr import Emr
from adamerge.rules.linear import Individual, Pretrained, TaskArithmetic, WeightAverage
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties

__all__ = ["Doge", "Emr", "Individual", "Pretrained", "Rule", "TaskArithmetic", "Ties", "WeightAverage"]
