"""The diffusion transformer, DiT (Peebles & Xie 2023), with the options later papers gave it.

A picture, or a map of latents, is cut into patches; each becomes a token.  Every block attends
over all tokens and then works on each by itself, around two skips; the noise level, with the class
and whatever else is said of the picture, scales and shifts what a branch sees and gates what it
adds.  All gates are zero at the start, so that each block begins as the identity (adaLN-Zero).

Shape letters: B batch, C channels or width of a token, N = h w tokens of a picture, row by row,
M tokens of a text, T their width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.networks.checks import check_dropout
from kao.networks.conditions import NOTHING, Conditions, Takes, placed, told
from kao.networks.dropout import Dropout
from kao.networks.embeddings import Sinusoids
from kao.networks.layers import zeroed
from kao.networks.positions import places, places_told, rotation, sincos
from kao.networks.recompute import Part
from kao.networks.sides import refuse_unfit
from kao.networks.token_attention import CrossAttention, SelfAttention, glorot

_FREQUENCIES = 256
"""Sines and cosines that a noise label becomes."""

_EPSILON = 1e-6
"""Added to variances in norms."""


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a DiT.  The defaults are DiT-S/2; `SHAPES` has the published ones.

    Attributes:
        width: Channels of a token.
        depth: Blocks.
        heads: Attention heads; each has width / heads channels.
        patch: Side of a patch, pixels: half of it means four times the tokens, and more than four
            times the operations.
        mlp_ratio: Channels inside the part of a block that works on each token by itself, in
            widths.
        positions: How a token says where it lies: "sincos", fixed, added to the tokens; "rotary":
            queries and keys turn with it (Su et al. 2021), so that attention sees how tokens lie
            to each other; "learned", added, for pictures of one size alone.
        norm: "layer", or "rms" (Zhang & Sennrich 2019), which leaves the mean; without weights of
            its own in both, since the noise level brings them.
        qk_norm: Norm queries and keys of each head by their root mean square, which keeps
            attention from saturating in bf16 (Dehghani et al. 2023; Esser et al. 2024).
        dropout: Share of activations dropped before the last layer of each branch, 0..1.
        embedding: How the frequencies of the noise label are spaced: "adm", as Peebles & Xie
            trained, or "ddpm" (see `sinusoids`), as diffusers runs the weights that they published.
        mlp_norm_eps: Added to variances in the norm before a block's layers on each token: 1e-6 as
            in all other norms, or 1e-5, as diffusers runs the weights that were published.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2
    mlp_ratio: float = 4.0
    positions: Literal["sincos", "learned", "rotary"] = "sincos"
    norm: Literal["layer", "rms"] = "layer"
    qk_norm: bool = False
    dropout: float = 0.0
    embedding: Literal["adm", "ddpm"] = "adm"
    mlp_norm_eps: float = 1e-6

    def build(
        self,
        *,
        channels: int,
        size: int,
        outputs: int | None = None,
        takes: Takes = Takes(),
    ) -> "DiT":
        """The network for square pictures.

        Args:
            channels: Of the pictures, or latents.
            size: Of the pictures, in pixels: the unit of positions, and with "learned" the only
                size that can be shown.
            outputs: Channels of what it says; None: as many as the pictures have, twice as many
                where it learns variances.
            takes: What it can be told beside the noise level.

        Raises:
            ConfigError: The options do not fit each other or the size.
        """
        self.check(size)
        if takes.coordinates and self.positions == "learned":
            raise ConfigError(
                'network.positions = "learned" has one position for each place of a whole picture '
                'and cannot be told where a part of one lies: take "sincos" or "rotary".'
            )
        return DiT(self, channels=channels, size=size, outputs=outputs or channels, takes=takes)

    @property
    def multiple(self) -> int:
        """What the sides of every picture it is shown must be multiples of, pixels."""
        return self.patch

    def check(self, size: int) -> None:
        """Raise a ConfigError that says what does not fit, and what would."""
        if min(self.width, self.depth, self.heads, self.patch) < 1:
            raise ConfigError(
                f"network.width = {self.width}, depth = {self.depth}, heads = {self.heads} and "
                f"patch = {self.patch} must all be 1 or more."
            )
        if self.width % self.heads:
            raise ConfigError(
                f"network.heads = {self.heads} must divide network.width = {self.width}: change "
                f"heads or width."
            )
        if self.positions == "sincos" and self.width % 4:
            raise ConfigError(
                f'network.width = {self.width}; network.positions = "sincos" needs a multiple of '
                f"4: sines and cosines of x and of y."
            )
        if self.positions == "rotary" and self.width // self.heads % 4:
            raise ConfigError(
                f"network.width = {self.width} with heads = {self.heads} gives heads of "
                f'{self.width // self.heads} channels, and network.positions = "rotary" needs a '
                f"multiple of 4: pairs that turn with x and with y."
            )
        if not 1 <= self.mlp_ratio * self.width < 2**31:
            raise ConfigError(
                f"network.mlp_ratio = {self.mlp_ratio}; expected a number above 0 that leaves a "
                f"channel or more, and not billions: 4 is usual."
            )
        check_dropout(self.dropout)
        if not 0 < self.mlp_norm_eps < 1:
            raise ConfigError(
                f"network.mlp_norm_eps = {self.mlp_norm_eps}; expected a small number above 0: "
                f"1e-6 or 1e-5."
            )
        if size % self.patch:
            raise ConfigError(
                f"network.patch = {self.patch} needs a size that is a multiple of {self.patch}, "
                f"and data.size = {size}: try {max(1, round(size / self.patch)) * self.patch}, or "
                f"another patch."
            )


SHAPES: Mapping[str, DiTConfig] = MappingProxyType(
    {
        "S": DiTConfig(width=384, depth=12, heads=6),
        "B": DiTConfig(width=768, depth=12, heads=12),
        "L": DiTConfig(width=1024, depth=24, heads=16),
        "XL": DiTConfig(width=1152, depth=28, heads=16),
    }
)
"""Peebles & Xie (2023), table 1, with patches of 2: `replace(SHAPES["B"], patch=4)` is DiT-B/4."""


class DiTBlock(nn.Module):
    """Attention, then two layers on each token, both under adaLN-Zero; a text is read between.

    Args:
        config: Of the network.
        tokens: Width of the tokens of a text that it reads; 0: none.
    """

    def __init__(self, config: DiTConfig, *, tokens: int):
        super().__init__()
        inside = int(config.mlp_ratio * config.width)
        self.level = zeroed(nn.Linear(config.width, 6 * config.width))
        self.norm_attention = _norm(config)
        self.attention = SelfAttention(
            config.width, heads=config.heads, dropout=config.dropout, qk_norm=config.qk_norm
        )
        self.norm_reading = _norm(config) if tokens else None
        self.reading = (
            CrossAttention(
                config.width,
                tokens=tokens,
                heads=config.heads,
                dropout=config.dropout,
                qk_norm=config.qk_norm,
            )
            if tokens
            else None
        )
        self.norm_mlp = _norm(config, eps=config.mlp_norm_eps)
        self.mlp = nn.Sequential(
            glorot(nn.Linear(config.width, inside)),
            nn.GELU(approximate="tanh"),
            Dropout(config.dropout),
            glorot(nn.Linear(inside, config.width)),
        )

    def forward(
        self, h_BNC: Tensor, embedding: Tensor, turn: Tensor | None, tokens: Tensor | None
    ) -> Tensor:
        """Map tokens to tokens.

        Args:
            h_BNC: (B, N, C).
            embedding: Of the noise level and what goes with it, (B, C).
            turn: From `rotation`; None: positions are in the tokens.
            tokens: Of a text, (B, M, T); None: there is none.

        Returns:
            (B, N, C).
        """
        shift, scale, gate, *mlp = self.level(embedding)[:, None].chunk(6, dim=2)
        seen = torch.addcmul(shift, self.norm_attention(h_BNC), 1 + scale)
        h_BNC = h_BNC + gate * self.attention(seen, turn)
        if self.norm_reading is not None and self.reading is not None and tokens is not None:
            h_BNC = h_BNC + self.reading(self.norm_reading(h_BNC), tokens)
        return self.worked(h_BNC, *mlp)

    def worked(self, h_BNC: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """The second half, on each token by itself; shift, scale and gate are (B, 1, C)."""
        return h_BNC + gate * self.mlp(torch.addcmul(shift, self.norm_mlp(h_BNC), 1 + scale))


class DiT(nn.Module):
    """A diffusion transformer; see the module's docstring and DiTConfig for its options.

    Positions come from the map of tokens at hand, so that pictures of other sizes can be shown,
    whole; where coordinates are told, they alone decide the positions, and the network sees
    them as two more channels too, since rotary positions say nothing of the place of all tokens.

    Args:
        config: Checked options.
        channels: Of the pictures.
        size: Of the pictures, in pixels.
        outputs: Channels of what it says.
        takes: What it can be told beside the noise level.
    """

    def __init__(self, config: DiTConfig, *, channels: int, size: int, outputs: int, takes: Takes):
        super().__init__()
        width = config.width
        self.patch, self.side = config.patch, size // config.patch
        self.width, self.head_width = width, width // config.heads
        self.takes = takes
        self.rotary = config.positions == "rotary"
        self.frequencies = Sinusoids(_FREQUENCIES, endpoint=config.embedding == "ddpm")

        self.embed = nn.Sequential(
            _quiet(nn.Linear(_FREQUENCIES, width)), nn.SiLU(), _quiet(nn.Linear(width, width))
        )
        seen = takes.channels(channels)
        self.conv_in = glorot(nn.Conv2d(seen, width, config.patch, stride=config.patch))
        self.layers = nn.ModuleList(
            DiTBlock(config, tokens=takes.tokens) for _ in range(config.depth)
        )
        self.norm_out = _norm(config)
        self.level_out = zeroed(nn.Linear(width, 2 * width))
        self.conv_out = zeroed(nn.Conv2d(width, outputs * config.patch**2, 1))

        # Last, so that the weights above are those of the same seed without them.
        self.positions = (
            nn.Parameter(0.02 * torch.randn(self.side**2, width))
            if config.positions == "learned"
            else None
        )
        self.augmented = takes.augmented(width)
        self.classes = takes.named(width)

    def forward(self, x: Tensor, label: Tensor, condition: Conditions | None = None) -> Tensor:
        """Map pictures and their noise labels to what the target asks for.

        Args:
            x: (B, C, H, W).
            label: (B,), float32, about 0..1000.
            condition: What it is told beside them; None: nothing.

        Returns:
            (B, outputs, H, W).

        Raises:
            ConfigError: It tells of what the network was not built for, or H and W do not fit
                the patches, or the learned positions.
        """
        given = NOTHING if condition is None else condition
        self.takes.refuse_unheard(given)
        refuse_unfit(x, self.patch)
        self._refuse_unlearned(*x.shape[2:])
        embedding = self.embed(self.frequencies(label))
        embedding = told(embedding, given, augmented=self.augmented, classes=self.classes)
        embedding = F.silu(embedding)

        if self.takes.coordinates:
            x = placed(x, given.where)
        patches = self.conv_in(x)
        # What the blocks add up stays in float32, whatever they compute in.
        h_BNC = patches.flatten(2).mT.float()
        turn = None
        if self.positions is not None:
            h_BNC = h_BNC + self.positions
        else:
            at = self._places(patches, given.where)
            if self.rotary:
                turn = rotation(at, self.head_width)
            else:
                h_BNC = h_BNC + sincos(at, self.width)

        for layer in self.layers:
            h_BNC = layer(h_BNC, embedding, turn, given.tokens)

        h_BHWC = h_BNC.unflatten(1, patches.shape[2:])
        return F.pixel_shuffle(self.head(h_BHWC, embedding), self.patch)

    def head(self, h_BHWC: Tensor, embedding: Tensor) -> Tensor:
        """Map tokens (B, h, w, C) and (B, C) to (B, outputs * patch^2, h, w)."""
        shift, scale = self.level_out(embedding)[:, None, None].chunk(2, dim=3)
        h_BHWC = torch.addcmul(shift, self.norm_out(h_BHWC), 1 + scale)
        return self.conv_out(h_BHWC.permute(0, 3, 1, 2))

    def blocks(self) -> list[Part]:
        """The half of each block that works on tokens by themselves, which keeps most."""
        return [Part(layer, "worked") for layer in self.layers]

    def parts(self) -> list[Part]:
        """The blocks and the head."""
        return [*(Part(layer) for layer in self.layers), Part(self, "head")]

    def _places(self, patches: Tensor, where: Tensor | None) -> Tensor:
        """Positions (1 or B, N, 2) of a map of tokens (B, C, h, w)."""
        if where is not None:
            return places_told(where, patch=self.patch, of=self.side)
        return places(*patches.shape[2:], of=self.side, device=patches.device)

    def _refuse_unlearned(self, height: int, width: int) -> None:
        built = self.side * self.patch
        if self.positions is not None and (height, width) != (built, built):
            raise ConfigError(
                f"This network learned positions for {built} x {built} pixels, and was shown "
                f'{width} x {height}: show it the size it was built for, or build it with "sincos" '
                f'or "rotary" positions.'
            )


def _norm(config: DiTConfig, *, eps: float = _EPSILON) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=eps, elementwise_affine=False)
    return nn.LayerNorm(config.width, eps=eps, elementwise_affine=False)


def _quiet(layer: nn.Linear) -> nn.Linear:
    """The layer with small weights, as the embeddings of Peebles & Xie (2023) start."""
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
