"""Finding what a user means by a name: a folder, a file, or a repository of the hub."""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kao.errors import CheckpointError, MissingExtraError

_TOLD = ("*.json", "README.md")
_WEIGHTS = ("diffusion_pytorch_model", "unet/diffusion_pytorch_model", "transformer/diffusion_")
"""How the names of networks begin; a pipeline of latents has other weights beside."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ONLINE = "look at the connection, or name a folder or a file that is on this machine"


@dataclass(frozen=True)
class Source:
    """What is to be read, on this machine.

    Attributes:
        path: A folder or a file.
        origin: The name that the user gave, with the revision where one was asked for.
        weights: Which of several weights are wanted: "auto", or a name that the format knows.
    """

    path: Path
    origin: str
    weights: str = "auto"

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What lies in the file; empty for a folder, and where the file holds no mapping.

        Raises:
            CheckpointError: The file is damaged, or holds more than tensors and plain values.
        """
        if self.path.is_dir():
            return {}
        opened = read_weights(self.path)
        return opened if isinstance(opened, Mapping) else {}

    def table(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder; None where there is none of that name.

        Args:
            name: Path inside the folder.

        Raises:
            CheckpointError: It is no JSON object.
        """
        file = self.path / name
        if not file.is_file():
            return None
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}).") from error
        if not isinstance(table, dict):
            raise CheckpointError(f"{file} holds no table of options: it is of another program.")
        return table


def locate(name: str, *, revision: str | None = None, weights: str = "auto") -> Source:
    """What a name stands for; from the hub, configurations and weights are fetched.

    Args:
        name: A folder, a file, or owner/name on the Hugging Face hub.
        revision: A branch, a tag or a commit of the hub; None: the newest.
        weights: See `Source`.

    Raises:
        CheckpointError: There is no such folder or file, and the hub has none or cannot be asked.
        MissingExtraError: huggingface_hub is needed and not installed.
    """
    path = Path(name).expanduser()
    if path.exists():
        if revision is not None:
            raise CheckpointError(
                f'{name} is on this machine, where there is no revision "{revision}": leave it '
                f"out, or give a name of the hub."
            )
        return Source(path, name, weights)
    if _HUB_NAME.fullmatch(name) is None:
        raise CheckpointError(
            f"There is no folder or file {name}, and it is no name of the hub either, which would "
            f"be owner/name: look at the spelling (you are in {Path.cwd()})."
        )
    origin = name if revision is None else f"{name}@{revision}"
    return Source(_fetched(name, revision), origin, weights)


def _fetched(name: str, revision: str | None) -> Path:
    """The folder of a repository of the hub, in the hub's own cache.

    Raises:
        CheckpointError, MissingExtraError: As `locate`.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingExtraError(
            "huggingface_hub", extra="hub", purpose=f"fetch {name}, which is on no disk here,"
        ) from error
    at = "" if revision is None else f' at revision "{revision}"'
    try:
        # The same weights often lie there twice, and pickles are the worse of the two.
        for ending in (".safetensors", ".bin"):
            wanted = [*_TOLD, "kao.safetensors", *(f"{start}*{ending}" for start in _WEIGHTS)]
            folder = Path(
                huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
            )
            if any(folder.rglob(f"*{ending}")):
                break
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is given only to those who accepted its terms: accept them on its page of "
            f"the hub, and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is neither a folder {name} here nor a model {name} on the hub: look at the "
            f"spelling; a private one needs `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{name} is on the hub, but not{at}: look at its branches and tags there, or leave "
            f"--revision out."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name}{at} is not on this machine and the hub cannot be reached: {_ONLINE}."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}{at} could not be fetched ({why}): {_ONLINE}.") from error
    return folder


def read_weights(file: Path) -> Any:
    """What lies in a file of weights: of .safetensors the tensors, else what was pickled.

    Pickles are opened with weights_only=True: tensors and plain values, never code.

    Args:
        file: Of any ending; .safetensors is read as such.

    Returns:
        Tensors by name, or whatever was saved; on the CPU.

    Raises:
        CheckpointError: It is damaged, or holds more than tensors and plain values.
    """
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with warnings.catch_warnings(action="ignore"):  # of what follows as an error
            return torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({_short(error)}).") from error
    except Exception as error:  # torch.load raises many kinds on what it does not know
        raise CheckpointError(
            f"{file} is no file of weights, or is damaged, or holds more than tensors and plain "
            f"values, which is not opened since it could run a program ({_short(error)})."
        ) from error


def read_state(folder: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of the first file of a folder that is there.

    Args:
        folder: Where to look.
        names: Of the files, the best first.

    Raises:
        CheckpointError: There is none, or it cannot be read or holds something else.
    """
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{folder} has no weights: expected {' or '.join(names)} there; in several files, or "
            f"for another program, they are not read."
        )
    return tensors(read_weights(file), file)


def tensors(state: Any, where: Path | str) -> dict[str, Tensor]:
    """The same mapping, which has tensors by name.

    Raises:
        CheckpointError: It has something else.
    """
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{where} does not hold tensors by name: it is no state dict.")
    return {str(name): tensor for name, tensor in state.items()}


def _short(error: Exception) -> str:
    """The first sentence of what another program says."""
    return " ".join(str(error).split()).split(". ")[0][:200]
