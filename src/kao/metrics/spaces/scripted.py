"""Feature networks that are published as TorchScript: Inception-v3 for FID, VGG-16 for LPIPS."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.metrics.resizing import clean
from kao.metrics.spaces.chunks import in_chunks
from kao.metrics.weights import WeightFile

Resize = Literal["clean", "legacy"]

_SIDE = 299  # pixels that Inception-v3 takes
_LEAST = 16  # pixels that VGG-16 can halve four times
_AT_ONCE = 32  # pictures of Inception
_PIXELS = 2**20  # of VGG-16 at a time: its first layers hold 64 numbers for each


def load_scripted(path: Path) -> torch.jit.ScriptModule:
    """A network from a TorchScript file: on the CPU, frozen.

    Raises:
        ConfigError: It is no TorchScript.
    """
    try:
        network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError) as error:
        # PyTorch's own words, in the cause, are a paragraph on archives.
        raise ConfigError(
            f"{path} cannot be read as TorchScript: give a file that torch.jit.save wrote."
        ) from error
    for parameter in network.parameters():  # a script refuses requires_grad_ as a whole
        parameter.requires_grad = False
    return network.eval()


def takes(network: torch.jit.ScriptModule, argument: str) -> bool:
    """Whether the forward of a network of `load_scripted` has an argument of that name."""
    arguments = network.forward.schema.arguments  # type: ignore[attr-defined]
    return any(known.name == argument for known in arguments)


class Inception(nn.Module):
    """Inception-v3 of 2015 (Szegedy et al. 2016), as it is used for FID, KID and IS.

    The features are the 2,048 averages before the last layer (Heusel et al. 2017).

    Args:
        weights: The TorchScript file of Karras et al. (2020b).
        resize: "clean", as Parmar et al. (2022), whose numbers those of clean-fid are; or
            "legacy", by the network itself as TensorFlow 1 did: bilinear without antialiasing,
            at source = target * H / 299.  Published FIDs of diffusion models are mostly "legacy".

    Raises:
        ConfigError: The file is no TorchScript, or of another network.
    """

    width = 2048

    def __init__(self, weights: WeightFile, *, resize: Resize = "clean"):
        super().__init__()
        self.network = load_scripted(weights.path)
        parts = {name for name, _ in self.network.named_children()}
        if not (takes(self.network, "return_features") and {"layers", "output"} <= parts):
            raise ConfigError(
                f"{weights.path} holds another network than Inception for FID: give "
                f"inception-2015-12-05.pt."
            )
        self._clean = resize == "clean"
        self.name = f"inception-{weights.sha256[:8]}" + ("" if self._clean else "-legacy")
        self.resize = "clean bicubic to 299" if self._clean else "TF1 bilinear to 299"

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients; see `Features.__call__`."""
        return in_chunks(self._look, images, chunk=_AT_ONCE)

    def _look(self, images: Tensor) -> Tensor:
        if self._clean:
            # Past the network's own resize, which rounds even where nothing is to be done.
            return self.network.layers((clean(images, _SIDE) - 128) / 128).flatten(1)
        return self.network(images, return_features=True).flatten(1)

    def probabilities(self, features: Tensor) -> Tensor:
        """What the pictures show, as the inception score needs it (Salimans et al. 2016).

        The bias of the last layer is left out, as in the code of their numbers.

        Args:
            features: Of pictures, (B, 2048), on any device.

        Returns:
            float32, (B, 1008), rows that sum to 1, on the device of `features`.
        """
        weight = self.network.output.weight
        return F.linear(features.to(weight), weight).softmax(1).to(features.device)


class LPIPS(nn.Module):
    """VGG-16 (Simonyan & Zisserman 2015) with the weights of LPIPS (Zhang et al. 2018).

    The squared Euclidean distance of two pictures' features is their LPIPS.  There are some
    122 H W features: half a million for a picture of 64 pixels.

    Args:
        weights: The TorchScript file of Karras et al. (2020b).

    Raises:
        ConfigError: The file is no TorchScript, or of another network.
    """

    width = None
    resize = "none"

    def __init__(self, weights: WeightFile):
        super().__init__()
        self.network = load_scripted(weights.path)
        if not takes(self.network, "return_lpips"):
            raise ConfigError(
                f"{weights.path} holds another network than VGG-16 with LPIPS: give vgg16.pt."
            )
        self.name = f"lpips-vgg16-{weights.sha256[:8]}"

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients; see `Features.__call__`.

        Raises:
            ConfigError: A side is below 16 pixels.
        """
        height, width = images.shape[-2:]
        if min(height, width) < _LEAST:
            raise ConfigError(
                f"LPIPS halves pictures four times and these are of {width} x {height} pixels; "
                f"expected {_LEAST} or more: use larger ones."
            )
        chunk = max(1, _PIXELS // (height * width))
        return in_chunks(
            lambda part: lpips_vectors(self.network, part.float()), images, chunk=chunk
        )


def lpips_vectors(network: nn.Module, x: Tensor) -> Tensor:
    """Vectors whose squared Euclidean distance is LPIPS (Zhang et al. 2018, eq. 1).

    Args:
        network: VGG-16 of `load_scripted`.
        x: Pictures, float, (B, 3, H, W), in 0..255.

    Returns:
        (B, D), differentiable.
    """
    return network(x, resize_images=False, return_lpips=True)
