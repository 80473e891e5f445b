"""A trained network that leaves the house, and what another program must know to draw with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kao.config import RunConfig
from kao.diffusion import Denoiser, NoiseSchedule, Target


@dataclass(frozen=True, eq=False)
class Trained:
    """A model with the weights that are given away.

    Attributes:
        config: Of its run, as it draws: a learned grid is filled in.
        denoiser: With those weights, on the CPU, ready to draw.
        name: Of its run.
        kind: Which weights they are: "ema-0.999", "model", "w0.100".
        images: Seen by the model when they were written.
    """

    config: RunConfig
    denoiser: Denoiser
    name: str
    kind: str
    images: int

    @property
    def network(self) -> nn.Module:
        """The bare network."""
        return self.denoiser.network

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The bare network's tensors by name."""
        return {name: t.detach().contiguous() for name, t in self.network.state_dict().items()}

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""
        return self.config.data.size

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the network itself was made for."""
        return self.denoiser.schedule

    @property
    def target(self) -> Target:
        """What the network itself says of them."""
        return self.denoiser.target
