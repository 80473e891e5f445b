"""Checkpoints: the folder format.  Knows tensors and files, and nothing of trainers."""

from kao.checkpoints.checkpoint import FOLDER, LOSS, MODEL, Checkpoint

__all__ = ["FOLDER", "LOSS", "MODEL", "Checkpoint"]
