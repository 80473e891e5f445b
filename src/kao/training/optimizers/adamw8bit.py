"""AdamW whose moments take a quarter of the memory."""

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import nn

from kao.errors import ConfigError, MissingExtraError
from kao.training.optimizers.method import Average, Named


@dataclass(frozen=True)
class AdamW8bit:
    """AdamW with moments in blocks of eight-bit numbers (Dettmers et al. 2022), on a GPU.

    For 100 M parameters it saves 600 MB; weights, gradients and averages stay in float32.  Needs
    the package bitsandbytes, of kao's extra "adamw8bit".
    """

    def check(self, device: torch.device) -> None:
        """See `Method`.

        Raises:
            ConfigError: The device is a CPU, where its kernels do not run.
        """
        if device.type == "cpu":
            raise ConfigError(
                'optimizer.method = "adamw8bit" needs a GPU and would train on a CPU, where '
                'memory is not what is short: take "adamw".'
            )

    def build(
        self, named: Named, *, rate: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """See `Method`."""
        parameters = [parameter for _, parameter in named]
        for parameter in parameters:
            self.check(parameter.device)
        try:
            # Not in every install, so nothing of it may be imported by name.
            optim = import_module("bitsandbytes.optim")
        except ImportError as error:
            raise MissingExtraError(
                "bitsandbytes", extra="adamw8bit", purpose="keep AdamW's moments in eight bits"
            ) from error
        optimizer: torch.optim.Optimizer = optim.AdamW8bit(
            parameters, lr=rate, betas=betas, weight_decay=weight_decay
        )
        return optimizer

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """See `Method`; it keeps none."""
        return {}
