"""What is descended: the denoiser and its loss as one module."""

from torch import Tensor, nn

from kao.diffusion import Denoiser, DenoisingLoss, Drawn, Losses
from kao.networks import Conditions


class Objective(nn.Module):
    """The loss of a denoiser, as the one module that processes share or shard.

    Both learn, so both belong to what `DistributedDataParallel` wraps; each keeps its own names
    in checkpoints, since nothing is saved under this module's.

    Args:
        denoiser: The model.
        loss: Loss of each image.
    """

    def __init__(self, denoiser: Denoiser, loss: DenoisingLoss):
        super().__init__()
        self.denoiser, self.loss = denoiser, loss

    def forward(self, x0: Tensor, conditions: Conditions | None, drawn: Drawn) -> Losses:
        """See `DenoisingLoss.at`."""
        return self.loss.at(self.denoiser, x0, conditions, drawn)
