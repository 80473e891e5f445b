"""Feature spaces for gradients: from float pictures to vectors, differentiably, by name."""

from pathlib import Path

from torch import Tensor, nn

from kao.errors import ConfigError
from kao.metrics.spaces.scripted import load_scripted, lpips_vectors, takes
from kao.metrics.spaces.wavelets import Wavelets


class WaveletMaps(nn.Module):
    """`Wavelets.maps` as a module to be called: (B, 3, S, S) in [-1, 1] to (B, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.wavelets = Wavelets()

    def forward(self, x: Tensor) -> Tensor:
        """Features of pictures; see `Wavelets.maps`."""
        return self.wavelets.maps(x)


class ScriptedMaps(nn.Module):
    """A feature network from a TorchScript file; frozen.

    LPIPS's VGG-16 as published in TorchScript takes pictures in 0..255 and, asked with
    return_lpips, gives vectors whose squared distance is LPIPS (Zhang et al. 2018); it is known by
    that argument.  Any other file is called with pictures in [-1, 1], and what it gives is
    flattened.

    Args:
        path: The file.

    Raises:
        ConfigError: There is no such file, or it is no TorchScript.
    """

    def __init__(self, path: Path):
        super().__init__()
        if not path.is_file():
            raise ConfigError(
                f'There is no feature network "{path}": expected "wavelets" or the path of a '
                f"TorchScript file."
            )
        self.network = load_scripted(path)
        self.lpips = takes(self.network, "return_lpips")

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) of float pictures (B, 3, H, W) in [-1, 1]."""
        if self.lpips:
            return lpips_vectors(self.network, 127.5 * (x + 1))
        return self.network(x).flatten(1)


def feature_maps(network: str) -> nn.Module:
    """A differentiable feature space by its name, for a perceptual term.

    Args:
        network: "wavelets", or the path of a TorchScript file.

    Returns:
        A module on the CPU without trainable parameters: (B, 3, H, W) in [-1, 1] to (B, D).

    Raises:
        ConfigError: There is no such file, or it is no TorchScript.
    """
    return WaveletMaps() if network == "wavelets" else ScriptedMaps(Path(network))
