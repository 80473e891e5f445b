"""Feature networks of the Hugging Face hub, through `transformers`: DINOv2 and CLIP."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kao.errors import ConfigError, MissingExtraError
from kao.files import at_home
from kao.metrics.resizing import rounded
from kao.metrics.spaces.chunks import in_chunks
from kao.metrics.weights import FOLDER, folder_of

_REPOSITORIES = {
    "dinov2": "facebook/dinov2-large",
    "clip": "openai/clip-vit-large-patch14-336",
}
_AT_ONCE = 16  # pictures
_PATIENCE = 10  # seconds for the hub to answer


class DINOv2(nn.Module):
    """What DINOv2 (Oquab et al. 2024) says of a whole picture: its class token.

    The network, ViT-L/14, and the resize, to 224 x 224 pixels normalised as ImageNet's, are as in
    Stein et al. (2023), who found that distances in this space agree best with people.  The
    features are nearly theirs and not the same numbers: position embeddings, learned on 37 x 37
    patches, are interpolated to 16 x 16 by size here, as `transformers` does it, and by a factor
    of 16.1 / 37 in the code of DINOv2 that theirs are from.  Compare with distances that were
    measured here.

    Args:
        place: A folder that `save_pretrained` wrote; by default $KAO_WEIGHTS/dinov2, or else
            facebook/dinov2-large from the hub's cache or the hub.
        tell: Called with a sentence on which weights these are: nothing checks them.

    Raises:
        ConfigError: There are no such weights, or they are of another network.
        MissingExtraError: `transformers` is not installed.
    """

    mean: Tensor
    std: Tensor

    side = 224
    resize = "bicubic to 224, in bytes"

    def __init__(
        self, place: Path | None = None, *, tell: Callable[[str], None] = lambda sentence: None
    ):
        super().__init__()
        try:
            from transformers import Dinov2Model
        except ImportError as error:
            raise _missing("DINOv2") from error
        self.model, found = _opened(Dinov2Model, "dinov2", place)
        self.width: int = self.model.config.hidden_size
        digest = _digest(self.model)
        tell(_unchecked("dinov2", found, digest))
        self.name = f"dinov2-{self.width}-{digest}"
        self.register_buffer("mean", _colours(0.485, 0.456, 0.406), persistent=False)
        self.register_buffer("std", _colours(0.229, 0.224, 0.225), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients; see `Features.__call__`."""
        return in_chunks(self._look, images, chunk=_AT_ONCE)

    def _look(self, images: Tensor) -> Tensor:
        x = (rounded(images, self.side) / 255 - self.mean) / self.std
        return self.model(pixel_values=x).pooler_output


class CLIP(nn.Module):
    """CLIP's image embedding (Radford et al. 2021), of length 1.

    The network and the resize are those of CMMD (Jayasumana et al. 2024) and of the code that was
    published with it: ViT-L/14 on pictures of 336 x 336 pixels, resized by Pillow to bytes.

    Args:
        place: A folder that `save_pretrained` wrote; by default $KAO_WEIGHTS/clip, or else
            openai/clip-vit-large-patch14-336 from the hub's cache or the hub.
        tell: Called with a sentence on which weights these are: nothing checks them.

    Raises:
        ConfigError: There are no such weights, or they are of another network.
        MissingExtraError: `transformers` is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, place: Path | None = None, *, tell: Callable[[str], None] = lambda sentence: None
    ):
        super().__init__()
        try:
            from transformers import CLIPVisionModelWithProjection as Network
        except ImportError as error:
            raise _missing("CLIP") from error
        self.model, found = _opened(Network, "clip", place)
        self.width: int = self.model.config.projection_dim
        self.side: int = self.model.config.image_size
        self.resize = f"bicubic to {self.side}, in bytes"
        digest = _digest(self.model)
        tell(_unchecked("clip", found, digest))
        self.name = f"clip-{self.width}-{digest}"
        mean = _colours(0.48145466, 0.4578275, 0.40821073)
        self.register_buffer("mean", mean, persistent=False)
        std = _colours(0.26862954, 0.26130258, 0.27577711)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients; see `Features.__call__`."""
        return in_chunks(self._look, images, chunk=_AT_ONCE)

    def _look(self, images: Tensor) -> Tensor:
        x = (rounded(images, self.side) / 255 - self.mean) / self.std
        embedding = self.model(pixel_values=x).image_embeds
        return embedding / embedding.norm(dim=-1, keepdim=True)


def _missing(network: str) -> MissingExtraError:
    return MissingExtraError(
        "transformers", extra="text", purpose=f"see pictures as {network} does"
    )


def _colours(*values: float) -> Tensor:
    """One number a channel: (3, 1, 1)."""
    return torch.tensor(values).view(3, 1, 1)


def _unchecked(space: str, place: str, digest: str) -> str:
    return (
        f'The weights of the feature space "{space}" are those found in {place}, digest {digest}: '
        f"no digest is published to check them by, so scores compare only where it is the same."
    )


def _opened(network: Any, space: str, named: Path | None) -> tuple[Any, str]:
    """A network with its weights, from a folder, the hub's cache or the hub; frozen; and where."""
    repository = _REPOSITORIES[space]
    folder = folder_of(space) if named is None else at_home(named)
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"--weights {space}={folder}, and there is no such folder: give one that "
            f"save_pretrained wrote, or leave it out and {repository} is downloaded."
        )
    if folder is not None:
        return _frozen(network, str(folder), space, offline=True), str(folder)
    try:
        return _frozen(network, repository, space, offline=True), repository
    except ConfigError:  # not in the hub's cache, or not the whole of it
        if why := _out_of_reach():
            raise _unread(space, repository, why) from None
        return _frozen(network, repository, space, offline=False), repository


def _frozen(network: Any, place: str, space: str, *, offline: bool) -> Any:
    try:
        with _quiet(bars=not offline):
            model, report = network.from_pretrained(
                place, local_files_only=offline, dtype=torch.float32, output_loading_info=True
            )
    # Three packages raise here, each what it likes, and say it in paragraphs.
    except Exception as error:
        raise _unread(space, place, _first_line(error)) from error
    # What is missing would be random.
    if missing := len(report["missing_keys"]) + len(report["mismatched_keys"]):
        raise ConfigError(
            f"{place} holds another network than {network.__name__}: {missing} of its weights are "
            f"missing."
        )
    return model.eval().requires_grad_(False)


def _out_of_reach() -> str:
    """Why the hub cannot be reached, found out by one question; "" where it answers.

    The hub's own downloads ask again and again, half a minute long, before they give up.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # of whatever client the hub uses
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def _unread(space: str, place: str, why: str) -> ConfigError:
    return ConfigError(
        f'The weights of the feature space "{space}" cannot be read from {place} ({why}): put '
        f"the files of https://huggingface.co/{_REPOSITORIES[space]} into a folder, and say "
        f"where it is with --weights {space}=FOLDER, or call it ${FOLDER}/{space}."
    )


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Nothing is said of weights of CLIP's other half, which are not used, nor of new attempts.

    Args:
        bars: Whether progress is shown, which a download deserves.
    """
    from huggingface_hub.utils import logging as of_hub
    from transformers.utils import logging

    before, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = of_hub.get_verbosity()
    logging.set_verbosity_error()
    of_hub.set_verbosity(ERROR)
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        of_hub.set_verbosity(hub)
        if shown:
            logging.enable_progress_bar()


def _digest(model: nn.Module) -> str:
    """First digits of a hash of the weights, whatever they are called and in whatever file."""
    each = sorted(
        hashlib.sha256(f"{tuple(x.shape)}".encode() + x.numpy().tobytes()).digest()
        for x in model.state_dict().values()
    )
    return hashlib.sha256(b"".join(each)).hexdigest()[:8]
