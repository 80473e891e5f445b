"""Pictures in: sources, toy faces, preparing, auditing, batches."""

from kao.data.item import ImageSource, Item
from kao.data.loading import Batch, batches
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source

__all__ = ["Batch", "ImageSource", "Item", "PreparedSet", "batches", "open_source", "prepare"]
