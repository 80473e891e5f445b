"""A model of whoever made it, in our terms: what a reader of a format hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kao.checkpoints import misfits
from kao.config import RunConfig, SamplingConfig
from kao.config.loss import LossConfig
from kao.config.run import CHANNELS, NetworkConfig
from kao.diffusion import Denoiser, ScheduleConfig, Target
from kao.errors import CheckpointError, ConfigError
from kao.networks import Takes

_BOUND = 0.001
"""Weight of the variational bound where a variance is learned (Nichol & Dhariwal 2021, eq. 16)."""

_MANY = 250
"""Steps beyond which drawing is left to those who ask for it: grids, scores and edits take it over
for all that they draw."""


@dataclass(frozen=True)
class Model:
    """A network with its weights, and what it was trained to say.

    Attributes:
        network: Its shape.
        channels: Of what it draws: 3 for pictures, others for latents.
        size: Of what it draws, pixels along a side.
        classes: Names of the classes that it is told, in the order of their numbers; empty: none.
        schedule: The noise levels it was trained on.
        target: What it says of them.
        learned_variance: Whether it says the variance of a reverse step, too (Nichol & Dhariwal
            2021): it then has twice the outputs.
        weights: Tensors by the names of the bare network's state dict, on the CPU.
        origin: Where it comes from, as a person would look for it.
        sampling: How its makers draw with it; None where that is not told.
        licence: Of the weights, as told with them; None where it is not.
        notes: Sentences on what is not known of it and was assumed.
        own: The configuration of its run, of a network that was trained here; it says the rest of
            what the network sees.  None: it was trained elsewhere, and sees pictures as they are.

    Raises:
        CheckpointError: A weight is no finite float.
    """

    network: NetworkConfig
    channels: int
    size: int
    classes: tuple[str, ...]
    schedule: ScheduleConfig
    target: Target
    learned_variance: bool
    weights: Mapping[str, Tensor]
    origin: str
    sampling: SamplingConfig | None = None
    licence: str | None = None
    notes: tuple[str, ...] = ()
    own: RunConfig | None = None

    def __post_init__(self) -> None:
        """Refuse weights that no network says anything with."""
        for name, tensor in self.weights.items():
            if not tensor.is_floating_point():
                kind = str(tensor.dtype).removeprefix("torch.")
                raise CheckpointError(
                    f"{name} of {self.origin} holds {kind} numbers, where a network has floats: it "
                    f"is packed, or of another program."
                )
            if not bool(tensor.isfinite().all()):
                raise CheckpointError(
                    f"{name} of {self.origin} holds numbers that are not finite: training went "
                    f"astray, or the file is damaged. Take other weights of it."
                )

    def build(self) -> nn.Module:
        """The network with its weights, on the CPU, float32, ready to draw.

        Raises:
            ConfigError, CheckpointError: As `denoiser`.
        """
        return self.denoiser().network

    def denoiser(self) -> Denoiser:
        """The network told what it sees and says, whatever the number of its channels.

        Raises:
            ConfigError: The options of the network do not fit each other or the size, or schedule
                and target do not go together.
            CheckpointError: The weights are not those of this network; the first three that do
                not fit are named.
        """
        denoiser = self._bare() if self.own is None else self.own.build_denoiser()
        if problems := misfits(denoiser.network.state_dict(), self.weights):
            raise CheckpointError(
                f"{self.origin} does not fit the network that its configuration tells of: "
                f"{problems}. It is of another version or another network."
            )
        denoiser.network.load_state_dict(dict(self.weights))
        return denoiser.eval().requires_grad_(False)

    def _bare(self) -> Denoiser:
        """The model without its weights."""
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and replaced at once
            network = self.network.build(
                channels=self.channels,
                size=self.size,
                outputs=(2 if self.learned_variance else 1) * self.channels,
                takes=Takes(classes=len(self.classes)),
            )
        return Denoiser(
            network, self.schedule.build(), self.target, learned_variance=self.learned_variance
        )

    def config(self, over: RunConfig | None = None) -> RunConfig:
        """The configuration of a run whose model this is.

        Args:
            over: What it says of everything else; None: the defaults.

        Raises:
            ConfigError: The model does not draw pictures of three channels.
        """
        if self.channels != CHANNELS:
            raise ConfigError(
                f"{self.origin} draws {self.channels} channels, and a run draws pictures of "
                f"{CHANNELS}: a model of latents or of grey pictures can be loaded with "
                f"kao.exchange.import_model, but not trained, drawn with or measured as a run."
            )
        if self.own is not None and over is None:
            return self.own
        # Who made it minimised the error of what it says, as far as one knows.
        base = RunConfig(loss=LossConfig(weight=None)) if over is None else over
        return replace(
            base,
            network=self.network,
            data=replace(base.data, size=self.size),
            schedule=self.schedule,
            target=self.target,
            loss=replace(base.loss, bound=_BOUND if self.learned_variance else 0.0),
            conditions=replace(
                base.conditions, classes=bool(self.classes), names=self.classes, counts=()
            ),
            sampling=self._sampling(base.sampling),
            input_scaling=self.own is not None and self.own.input_scaling,
        )

    def _sampling(self, usual: SamplingConfig) -> SamplingConfig:
        """How to draw: as its makers do, unless they walk a whole chain for each picture."""
        if self.sampling is None:
            return usual
        if self.sampling.steps <= _MANY:
            return self.sampling
        return replace(usual, threshold=self.sampling.threshold)
