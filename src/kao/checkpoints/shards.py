"""What several processes save together: each its part of every tensor.

The format is torch's distributed checkpoint in `.safetensors` files, one or more a process: the
place of each part in its tensor stands in the file, so that any number of processes reads them,
one included, and no pickle is opened.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from kao.errors import CheckpointError, OutputError


def save_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this process's parts; all processes call it together, with the same folder.

    Raises:
        OutputError: In every process, if one of them could not write.
    """
    try:
        save(
            dict(tensors),
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        )
    except CheckpointException as error:
        reason = "; ".join(sorted({str(cause) for cause in _causes(error)}))
        raise OutputError(
            f"{folder} cannot be written by all processes ({reason}): it must lie on a file system "
            f"that they share, with room left."
        ) from error


def load_shards(
    folder: Path, make: Callable[[str, torch.Size, torch.dtype], Tensor]
) -> dict[str, Tensor]:
    """Read what `save_shards` wrote, with any number of processes.

    Args:
        folder: As it was given to `save_shards`, seen by all processes.
        make: From a tensor's path, shape and dtype to the tensor to fill, plain or sharded.

    Returns:
        The filled tensors by path.

    Raises:
        CheckpointError: They cannot be read, or do not fit.
    """
    try:
        facts = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        tensors = {
            path: make(path, fact.size, fact.properties.dtype)
            for path, fact in facts.items()
            if isinstance(fact, TensorStorageMetadata)
        }
        with warnings.catch_warnings():  # one process may load what several saved
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(
                dict(tensors),
                storage_reader=HuggingFaceStorageReader(str(folder)),
                no_dist=not dist.is_initialized(),
            )
    except (CheckpointException, OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error}): use an earlier checkpoint of the run."
        ) from error
    return tensors


def _causes(error: CheckpointException) -> list[BaseException]:
    return [cause for cause, _ in error.failures.values()]
