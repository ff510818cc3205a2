"""Adaptive merging methods, one per file."""

from adamerge.methods.adamerging import AdaMerging
from adamerge.methods.base import Method, Representation
from adamerge.methods.concrete import Concrete
from adamerge.methods.dam import DAM
from adamerge.methods.frank_wolfe import FrankWolfe
from adamerge.methods.full_finetuning import FullFinetuning
from adamerge.methods.prodistill import ElementWise
from adamerge.methods.static import Fixed, Static, experts
from adamerge.methods.supermerge import SuperMerge
from adamerge.methods.surgery import Surgery
from adamerge.methods.surgery_v2 import SurgeryV2
from adamerge.methods.tinting import Tinting
from adamerge.methods.twin import Twin
from adamerge.methods.wemoe import WEMoE

__all__ = [
    "AdaMerging",
    "Concrete",
    "DAM",
    "ElementWise",
    "Fixed",
    "FrankWolfe",
    "FullFinetuning",
    "Method",
    "Representation",
    "Static",
    "SuperMerge",
    "Surgery",
    "SurgeryV2",
    "Tinting",
    "Twin",
    "WEMoE",
    "experts",
]
