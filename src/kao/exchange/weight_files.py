"""The files in which diffusers keeps the weights of a network: one, or shards with an index.

A variant, as fp16, stands in the names: diffusion_pytorch_model.fp16.safetensors.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from kao.errors import CheckpointError
from kao.exchange.located import WEIGHTS, read_table, read_weights
from kao.exchange.wrapped import flat

_ENDINGS = ("safetensors", "bin")
"""The better first: the other is a pickle."""

_NAME = re.compile(
    rf"{WEIGHTS}(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
    rf"|{WEIGHTS}\.(?:safetensors|bin)\.index(?:\.(?P<indexed>[\w-]+))?\.json"
)


def read_variant(folder: Path, weights: str) -> dict[str, Tensor]:
    """The weights of a network.

    Args:
        folder: Of the network.
        weights: "auto" for the plain ones, or a variant, such as "fp16".

    Raises:
        CheckpointError: There are none of the variant, a shard is missing, or a file is damaged.
    """
    variant = _variant(weights)
    for ending in _ENDINGS:
        file = folder / f"{WEIGHTS}{variant}.{ending}"
        if file.is_file():
            return _read(file)
        index = folder / f"{WEIGHTS}.{ending}.index{variant}.json"
        if index.is_file():
            return _read_shards(index)
        if shards := sorted(folder.glob(f"{WEIGHTS}{variant}-*-of-*.{ending}")):
            return _read_unlisted(shards)
    raise CheckpointError(_missing(folder, weights))


def variants(folder: Path) -> list[str]:
    """Names of the variants that a folder has beside the plain weights, in order."""
    found = (_NAME.fullmatch(file.name) for file in folder.iterdir())
    return sorted({name for m in found if m and (name := m["variant"] or m["indexed"])})


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of one file, however deep.

    Raises:
        CheckpointError: It is damaged, or holds none.
    """
    content = read_weights(file)
    found = flat(content) if isinstance(content, Mapping) else {}
    if not found:
        raise CheckpointError(f"{file} does not hold tensors by name: it is no state dict.")
    return found


def _read_unlisted(shards: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of files that no index names: by their names each knows how many they are.

    Raises:
        CheckpointError: One is missing, or damaged.
    """
    count = int(shards[0].stem.rsplit("-", 1)[-1])
    if len(shards) != count:
        raise CheckpointError(
            f"{shards[0].parent} has {len(shards)} of the {count} files that its weights are in, "
            f"by their names: fetch the others."
        )
    return {name: tensor for shard in shards for name, tensor in _read(shard).items()}


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names.

    Raises:
        CheckpointError: The index is damaged, or a file is missing, damaged, or without a tensor
            that it should hold.
    """
    places = read_table(index).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in places.values()
    ):
        raise CheckpointError(
            f"{index} does not say which file beside it holds which tensor (weight_map)."
        )
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        shard = index.with_name(name)
        if not shard.is_file():
            raise CheckpointError(
                f"{shard} is missing, and {index.name} names it: the weights are in "
                f"{len(set(places.values()))} files, all of which are needed."
            )
        state |= _read(shard)
    if lost := [name for name in places if name not in state]:
        raise CheckpointError(f"{lost[0]} is not in {places[lost[0]]}, where {index} has it.")
    return state


def _missing(folder: Path, weights: str) -> str:
    """What is said where a folder has no weights of a variant: what it has, and how to ask."""
    variant = _variant(weights)
    wanted = " or ".join(f"{WEIGHTS}{variant}.{ending}" for ending in _ENDINGS)
    found = {file.name: match for file in folder.iterdir() if (match := _NAME.fullmatch(file.name))}
    if not found:
        hint = "" if variant else ", or a variant of it, which --weights names (as fp16)"
        return f"{folder} has no weights: expected {wanted} there{hint}."
    variants = sorted({match["variant"] or match["indexed"] or "" for match in found.values()})
    ways = [f"ask for --weights {name}" if name else "leave --weights out" for name in variants]
    return (
        f"{folder} has no {wanted}, but {', '.join(sorted(found))}: for these, {' or '.join(ways)}."
    )


def _variant(weights: str) -> str:
    return "" if weights == "auto" else f".{weights}"
