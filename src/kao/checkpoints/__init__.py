"""Checkpoints: the folder format.  Knows tensors and files, and nothing of trainers."""

from kao.checkpoints.checkpoint import FOLDER, LOSS, MODEL, Checkpoint, fill, misfits
from kao.checkpoints.snapshots import SNAPSHOTS, Snapshot

__all__ = ["FOLDER", "LOSS", "MODEL", "SNAPSHOTS", "Checkpoint", "Snapshot", "fill", "misfits"]
