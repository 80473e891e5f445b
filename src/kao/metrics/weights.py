"""Where the weights of published feature networks are found.

In this order: the place that the user names, the folder $KAO_WEIGHTS, kao's cache, and a download,
once.  A file that was not named must be the published one to the bit, so that scores compare; of
networks from the Hugging Face hub, which are folders, no hash is known to check them by.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from kao.errors import ConfigError, OutputError
from kao.files import at_home, cache_folder, new_file, writing

FOLDER = "KAO_WEIGHTS"
"""Variable of the environment: a folder of files by their published names."""

Progress = Callable[[int, int], None]
"""Called with bytes that have arrived, and bytes in all."""

_BLOCK = 2**20
_PATIENCE = 30  # seconds without a byte


@dataclass(frozen=True)
class Published:
    """A file of weights that its authors publish.

    Attributes:
        space: Name of the feature space that it is for, as users type it.
        url: Where it is; its last part is the file's name.
        size: Bytes.
        sha256: Of its bytes, in hexadecimal.
    """

    space: str
    url: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    @property
    def home(self) -> Path:
        """Where a download is kept."""
        return cache_folder() / "weights" / self.file

    @property
    def by_hand(self) -> str:
        """How to do without a download, as the end of a sentence."""
        return (
            f"fetch {self.url} yourself and put it into {self.home.parent}, or say where it is "
            f"with --weights {self.space}=PATH"
        )


_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"

INCEPTION = Published(
    "inception",
    _NVIDIA + "inception-2015-12-05.pt",
    95_607_719,
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
"""Inception-v3 of Heusel et al. (2017), translated to TorchScript by Karras et al. (2020b)."""

VGG16 = Published(
    "lpips",
    _NVIDIA + "vgg16.pt",
    553_469_545,
    "b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3",
)
"""VGG-16 with the weights of LPIPS (Zhang et al. 2018), in TorchScript, by the same."""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Attributes:
        path: Where it is.
        sha256: Of its bytes, in hexadecimal.
    """

    path: Path
    sha256: str


def find(
    published: Published,
    named: Path | None = None,
    *,
    tell: Callable[[str], None],
    progress: Progress,
) -> WeightFile:
    """Find a file of weights; download it where it is nowhere.

    Args:
        published: Which one.
        named: Where the user says it is.  It may be another file than the published one: its
            own hash then names the scores, so that they never pass for those of the other.
        tell: Called with a sentence where it is another file.
        progress: Called during a download.

    Raises:
        ConfigError: The named file is missing, one that was not named is not the published one,
            or the download fails.
        OutputError: The download cannot be written.
    """
    if named is not None:
        return _named(published, named, tell)
    for path in (*_in_folder(published.file), published.home):
        if path.is_file():
            return _checked(published, path)
    _download(published, progress)
    return WeightFile(published.home, published.sha256)


def folder_of(space: str) -> Path | None:
    """The folder of a space in $KAO_WEIGHTS; None without one.

    Raises:
        ConfigError: $KAO_WEIGHTS is no folder.
    """
    return next((path for path in _in_folder(space) if path.is_dir()), None)


def _in_folder(name: str) -> list[Path]:
    """Where a file of that name would be in $KAO_WEIGHTS; nothing where that is not set."""
    if not (said := os.environ.get(FOLDER)):
        return []
    folder = at_home(said)
    if not folder.is_dir():
        raise ConfigError(
            f"{FOLDER} = {said}, and there is no such folder: make it, or unset {FOLDER}."
        )
    return [folder / name]


def _named(published: Published, named: Path, tell: Callable[[str], None]) -> WeightFile:
    path = at_home(named)
    if not path.is_file():
        raise ConfigError(
            f"--weights {published.space}={named}, and there is no such file: give the path of "
            f"{published.file}, or leave it out and it is downloaded."
        )
    digest = _sha256(path)
    if digest != published.sha256:
        tell(
            f"{path} is not the published {published.file}: scores are named after its own hash, "
            f"{digest[:8]}, and do not compare with those of {published.sha256[:8]}."
        )
    return WeightFile(path, digest)


def _checked(published: Published, path: Path) -> WeightFile:
    size = path.stat().st_size
    digest = _sha256(path) if size == published.size else None
    if digest != published.sha256:
        met = f"SHA-256 {digest[:8]}" if digest else f"{size:,} bytes"
        expected = published.sha256[:8] if digest else f"{published.size:,}"
        raise ConfigError(
            f"{path} is not the published file ({met} instead of {expected}): delete it, and "
            f"{published.by_hand}."
        )
    return WeightFile(path, published.sha256)


def _sha256(path: Path) -> str:
    """Of a file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}): change its permissions, or copy "
            f"it again."
        ) from error


def _download(published: Published, progress: Progress) -> None:
    """Fetch a file, which takes its name only when it is whole and the right one."""
    digest, count = hashlib.sha256(), 0
    try:
        with writing(published.home):
            published.home.parent.mkdir(parents=True, exist_ok=True)
        with new_file(published.home) as beside, beside.open("wb") as file:
            for block in _arriving(published):
                file.write(block)
                digest.update(block)
                count += len(block)
                progress(count, published.size)
                if count > published.size:
                    break
            if count != published.size:
                raise _failed(published, f"{count:,} bytes came, expected {published.size:,}")
            if (met := digest.hexdigest()) != published.sha256:
                expected = published.sha256[:8]
                raise _failed(published, f"what came has SHA-256 {met[:8]}, expected {expected}")
    except OutputError as error:
        sentence = str(error).removesuffix(".")
        raise OutputError(
            f"{sentence}; KAO_CACHE says where downloads go, or {published.by_hand}."
        ) from error


def _arriving(published: Published) -> Iterator[bytes]:
    """The bytes of a URL.

    Raises:
        ConfigError: It cannot be reached, or the connection breaks.
    """
    try:
        with urlopen(published.url, timeout=_PATIENCE) as response:
            while block := response.read(_BLOCK):
                yield block
    except (OSError, HTTPException) as error:
        # urllib wraps what went wrong.
        why = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise _failed(published, why) from error


def _failed(published: Published, why: str) -> ConfigError:
    return ConfigError(
        f'The weights of the feature space "{published.space}" cannot be downloaded ({why}): '
        f"{published.by_hand}."
    )
