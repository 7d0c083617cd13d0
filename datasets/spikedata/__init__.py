"""Data for spiking networks: loaders, downloads and encoders."""

from spikedata import encode
from spikedata.catalogue import DATASETS, load
from spikedata.dataset import DatasetSpec, ImageDataset
from spikedata.errors import DataError

__all__ = ["DATASETS", "DataError", "DatasetSpec", "ImageDataset", "encode", "load"]
