"""Where real pictures come from: Parquet files, the Hugging Face Hub, folders, torchvision's datasets."""

from adamerge.tasks.sources.folder import Folder
from adamerge.tasks.sources.listed import Listed
from adamerge.tasks.sources.tables import Hub, Parquet
from adamerge.tasks.sources.vision import Torchvision

__all__ = ["Folder", "Hub", "Listed", "Parquet", "Torchvision"]
