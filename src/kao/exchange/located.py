"""Finding what a user means by a name: a folder, a file, or a repository of the hub."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from kao.errors import CheckpointError, MissingExtraError
from kao.exchange.wrapped import Unwrapped, flat, neighbours, unwrapped
from kao.files import at_home, near_path, tensors_of

_TOLD = ("*.json", "README.md")
WEIGHTS = "diffusion_pytorch_model"
"""How the names of the files begin in which diffusers keeps a network."""

_FOLDERS = ("", "unet/", "transformer/", "unet_ema/", "transformer_ema/")
_OF_PATHS = (".", "~", "/")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/tree/main)?/?"
)
_ONLINE = "look at the connection, or name a folder or a file that is on this machine"


@dataclass(frozen=True)
class Source:
    """What is to be read, on this machine.

    Attributes:
        path: A folder or a file.
        origin: The name that the user gave, with the revision where one was asked for.
        weights: Which of several weights are wanted: "auto", or a name that the format knows.
        notes: Sentences on what was met while it was read, which grow.
    """

    path: Path
    origin: str
    weights: str = "auto"
    notes: list[str] = field(default_factory=list, compare=False)

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What lies in the file; empty for a folder, and where the file holds no mapping.

        Raises:
            CheckpointError: The file is damaged, or holds more than tensors and plain values.
        """
        if self.path.is_dir():
            return {}
        opened = read_weights(self.path)
        content = opened if isinstance(opened, Mapping) else {}
        if found := [f"{k} = {v}" for k, v in content.items() if isinstance(v, np.generic)]:
            self.notes.append(f"It holds numbers of NumPy, which were read: {', '.join(found)}.")
        return content

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the file, by the way to them; none for a folder.

        Raises:
            CheckpointError: As `content`.
        """
        return flat(self.content)

    def network(
        self, *anchors: str, usual: Sequence[str] = ("",), tables: Sequence[str] = ()
    ) -> Unwrapped:
        """The weights of the network in the file, of the set that is wanted; notes are taken.

        Args:
            anchors: Names that every network of its kind has; they are in the file.
            usual: See `unwrapped`.
            tables: See `unwrapped`.

        Raises:
            CheckpointError: As `content`, or there is no set of the name that is wanted.
        """
        found = unwrapped(
            self.tensors,
            *anchors,
            origin=self.origin,
            wanted=self.weights,
            usual=usual,
            tables=tables,
        )
        self.notes.extend(found.notes if found.averaged else found.notes + neighbours(self.path))
        return found

    def table(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder; None where there is none of that name.

        Args:
            name: Path inside the folder.

        Raises:
            CheckpointError: It is no JSON object.
        """
        file = self.path / name
        return read_table(file) if file.is_file() else None


def locate(name: str, *, revision: str | None = None, weights: str = "auto") -> Source:
    """What a name stands for; from the hub, configurations and weights are fetched.

    Args:
        name: A folder, a file, or owner/name on the Hugging Face hub, or the address of its page.
        revision: A branch, a tag or a commit of the hub; None: the newest.
        weights: See `Source`.

    Raises:
        CheckpointError: There is no such folder or file, and the hub has none or cannot be asked.
        MissingExtraError: huggingface_hub is needed and not installed.
    """
    path = path_of(name)
    if path.exists():
        if revision is not None:
            raise CheckpointError(
                f'{name} is on this machine, where there is no revision "{revision}": leave it '
                f"out, or give a name of the hub."
            )
        return Source(path, name, weights)
    if name.startswith(_OF_PATHS):
        raise CheckpointError(
            f"There is no folder or file {name}{near_path(path)}: look at the spelling (you are in "
            f"{Path.cwd()})."
        )
    name = plain_name(name)
    if _HUB_NAME.fullmatch(name) is None:
        raise CheckpointError(
            f"There is no folder or file {name}{near_path(path)}, and it is no name of the hub "
            f"either, which would be owner/name: look at the spelling (you are in {Path.cwd()})."
        )
    origin = name if revision is None else f"{name}@{revision}"
    return Source(_fetched(name, revision, weights), origin, weights)


def plain_name(name: str) -> str:
    """A name as it is kept: owner/name where it is the address of a page of the hub."""
    page = _HUB_PAGE.fullmatch(name)
    return page[1] if page else name


def path_of(name: str) -> Path:
    """The path that a name would be, whether or not something is there.

    Raises:
        CheckpointError: The name is empty.
        ConfigError: It begins in the home directory of a user who is not known.
    """
    if not name.strip():
        raise CheckpointError("The name is empty: give a folder, a file, or owner/name of the hub.")
    return at_home(name)


def _fetched(name: str, revision: str | None, weights: str) -> Path:
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
    at, near = "" if revision is None else f' at revision "{revision}"', near_path(Path(name))
    try:
        # The same weights often lie there twice, and pickles are the worse of the two.
        for ending in ("safetensors", "bin"):
            wanted = _wanted(ending, weights)
            folder = Path(
                huggingface_hub.snapshot_download(
                    name, revision=revision, allow_patterns=[*_TOLD, *wanted]
                )
            )
            # What was fetched earlier lies there, too.
            files = [file.relative_to(folder).as_posix() for file in folder.rglob(f"*.{ending}")]
            if any(fnmatchcase(file, pattern) for file in files for pattern in wanted):
                break
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is given only to those who accepted its terms: accept them on its page of "
            f"the hub, and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is neither a folder {name} here{near} nor a model {name} on the hub: look at "
            f"the spelling; a private one needs `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{name} is on the hub, but not{at}: look at its branches and tags there, or leave "
            f"--revision out."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder or file {name} here{near}, and the hub cannot be reached to look "
            f"for a model of that name{at}: {_ONLINE}."
        ) from error
    # The client has changed the library that it asks with: what that raises is its error's base.
    except (errors.HFValidationError, OSError, *errors.HfHubHTTPError.__bases__) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}{at} could not be fetched ({why}): {_ONLINE}.") from error
    return folder


def _wanted(ending: str, weights: str) -> list[str]:
    """Patterns of the files of weights to fetch; a pipeline of latents has others beside.

    Args:
        ending: "safetensors" or "bin".
        weights: See `Source`.
    """
    own = ["kao.safetensors"] if (ending, weights) == ("safetensors", "auto") else []
    plain = weights == "auto" or f"{weights}/" in _FOLDERS
    start = WEIGHTS if plain else f"{WEIGHTS}.{weights}"
    names = (f"{start}.{ending}", f"{start}-*-of-*.{ending}")
    return [*own, *(f"{folder}{name}" for folder in _FOLDERS for name in names)]


def read_table(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: It cannot be read, or holds something else.
    """
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}).") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{file} holds no table of options: it is of another program.")
    return table


def read_weights(file: Path) -> Any:
    """What lies in a file of weights: of .safetensors the tensors, else what was pickled.

    Pickles are opened with weights_only=True: tensors, plain values and numbers of NumPy, never
    code.

    Args:
        file: Of any ending; what it begins with tells which of the two it is.

    Returns:
        Tensors by name, or whatever was saved; on the CPU.

    Raises:
        CheckpointError: It is empty, cut off, damaged, no file of weights, or holds more than
            tensors, plain values and numbers; the message says which.
    """
    try:
        with file.open("rb") as opened:
            begins, size = opened.read(512), file.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({_short(error)}).") from error
    if known := _no_weights(begins):
        raise CheckpointError(f"{file} {known}")
    if begins[8:9] == b"{":
        try:
            with tensors_of(file) as packed:
                return {name: packed.get_tensor(name) for name in packed.keys()}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} {_damage(begins, size, error)}") from error
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of what follows as an error
            torch.serialization.safe_globals(_numbers_of_numpy()),
            file.open("rb") as opened,  # by a name torch would go by its ending
        ):
            return torch.load(opened, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds on what it does not know
        if met := _UNKNOWN.search(str(error)):
            raise CheckpointError(
                f"{file} holds {met[1] or met[2]} beside tensors and plain values, and stays "
                f"closed, since opening it could run a program: where it was made, save the "
                f"weights alone (torch.save(model.state_dict(), FILE)) or as .safetensors."
            ) from error
        raise CheckpointError(f"{file} {_damage(begins, size, error)}") from error


_UNKNOWN = re.compile(r"GLOBAL (\S+)|<class '([^']+)'>")
"""How torch names what it refuses to unpickle; it goes on to advise to open it all the same."""


def _no_weights(begins: bytes) -> str:
    """What a file is that begins so and holds no weights, as the end of a sentence; or ""."""
    text = begins.lstrip().lower()
    if not begins:
        return "is empty: copy or fetch it again."
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS in the place of weights: fetch them with `git lfs pull`."
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page that was saved in the place of weights: fetch the file itself."
    if text.startswith((b'{"', b"{\n")):
        return "is a text of JSON, and no weights: fetch the file itself."
    return ""


def _damage(begins: bytes, size: int, error: Exception) -> str:
    """What is wrong with a file that cannot be read, as the end of a sentence."""
    again = "copy or fetch it again"
    if begins[8:9] == b"{":
        return f"is damaged, or cut off after {size:,} bytes ({_short(error)}): {again}."
    if begins.startswith(b"PK"):
        return f"is damaged, or cut off after {size:,} bytes: {again}."
    if begins.startswith(b"\x80"):
        return (
            f"is a pickle that torch did not write, or was cut off after {size:,} bytes: it stays "
            f"closed, since opening it could run a program. Fetch it again, or save it by "
            f"torch.save or as .safetensors where it was made."
        )
    return f"is no file of weights, or is damaged ({_short(error)}): expected .safetensors or .pt."


def _numbers_of_numpy() -> list[Any]:
    """What pickles make numbers and arrays of numbers of NumPy with; none of it runs a program."""
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSUMm"}
    makers = (("scalar", np.float64(0)), ("_reconstruct", np.zeros(0)))
    return [
        np.dtype,
        np.ndarray,
        *kinds,
        *(
            (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
            for name, value in makers
            for core in ("core", "_core")  # before NumPy 2 and since
        ),
    ]


def in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, floats of any precision as float32; what is no float stays as it is."""
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _short(error: Exception) -> str:
    """The first sentence of what another program says, or the name of its error."""
    return " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
