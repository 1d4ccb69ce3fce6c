"""Small real and made data sets for studies and tests, and wrong labels; nothing is downloaded."""

from thalweg.data.corrupt_labels import CIFAR10_CONFUSIONS as CIFAR10_CONFUSIONS
from thalweg.data.corrupt_labels import corrupt_labels as corrupt_labels
from thalweg.data.digits import Digits as Digits
from thalweg.data.digits import digits as digits
from thalweg.data.indexed_dataset import IndexedDataset as IndexedDataset
from thalweg.data.marker_mod_add import MarkerModAdd as MarkerModAdd

__all__ = [
    "CIFAR10_CONFUSIONS",
    "Digits",
    "IndexedDataset",
    "MarkerModAdd",
    "corrupt_labels",
    "digits",
]
