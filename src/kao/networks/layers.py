"""Blocks that networks share: embeddings, normalisation, residual and attention blocks, resampling.

Shape letters: B batch, C channels, H and W height and width, E embedding width,
N = H W positions, K heads, D width of a head.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def sinusoids(label: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of a noise label (Vaswani et al. 2017, sec. 3.5; Ho et al. 2020).

    Frequencies fall geometrically from 1 to 1/10000, so labels should span about 0..1000.

    Args:
        label: float32, (B,).
        width: Even.

    Returns:
        float32, (B, width): sines, then cosines.
    """
    half = width // 2
    exponent = torch.arange(half, device=label.device, dtype=torch.float32) / (half - 1)
    angle = label[:, None] * torch.exp(-math.log(10_000.0) * exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm with `groups` groups, or as many as leave two channels or more in each.

    A group of one channel would subtract whatever is added to that channel as a whole, and a
    noise level that is added before the norm would be lost.

    Args:
        channels: Even.
        groups: At most so many; a power of two.
    """
    return nn.GroupNorm(min(math.gcd(groups, channels), channels // 2), channels)


def zeroed(module: Layer) -> Layer:
    """The same module with weights and bias at zero: the branch it ends starts as nothing."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the noise level in between, around a skip.

    Ho et al. (2020), appendix B; with `film`, the level scales and shifts the second norm
    (Perez et al. 2018; Dhariwal & Nichol 2021, "AdaGN"); with `resample`, both branches change
    size inside the block (Brock et al. 2019, BigGAN; Song et al. 2021).

    Args:
        inputs, outputs: Channels.
        embedding: Width of the level's embedding.
        dropout: Share of activations dropped before the second convolution, 0..1.
        groups: Groups of the norms, at most.
        film: Scale and shift the second norm instead of adding to its input.
        resample: Module that halves or doubles the size in both branches, without parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        embedding: int,
        dropout: float,
        groups: int,
        film: bool,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.norm_in = group_norm(inputs, groups)
        self.resample = resample if resample is not None else nn.Identity()
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.level = nn.Linear(embedding, 2 * outputs if film else outputs)
        self.norm_out = group_norm(outputs, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.film = film

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and (B, E) to (B, outputs, H', W')."""
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        level = self.level(embedding)[:, :, None, None]
        if self.film:
            scale, shift = level.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        else:
            h = self.norm_out(h + level)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.skip(self.resample(x)) + h


def attend(q_BKDN: Tensor, k_BKDN: Tensor, v_BKDN: Tensor) -> Tensor:
    """Softmax of scaled products (Vaswani et al. 2017, eq. 1); returns (B, K, D, N)."""
    if q_BKDN.device.type in ("cpu", "meta"):
        # Written out: on a CPU torch's fused function multiplies bf16 in float32, and a training
        # step with it took 8 % longer.  In float32 both agree to the bit.
        scale = q_BKDN.shape[-2] ** -0.25
        w_BKNN = ((q_BKDN * scale).mT @ (k_BKDN * scale)).softmax(-1)
        return (w_BKNN @ v_BKDN.mT).mT
    # Fused kernels want the numbers of a head beside each other, and are not taken otherwise.
    q_BKND, k_BKND, v_BKND = (each.mT.contiguous() for each in (q_BKDN, k_BKDN, v_BKDN))
    return F.scaled_dot_product_attention(q_BKND, k_BKND, v_BKND).mT


class AttentionBlock(nn.Module):
    """Self-attention over all positions, around a skip (Ho et al. 2020, appendix B).

    Args:
        channels: Channels, a multiple of `heads`.
        heads: Attention heads.
        groups: Groups of the norm, at most.
    """

    def __init__(self, channels: int, *, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        return x + self.out(attend(*qkv.unbind(1)).reshape(B, C, H, W))
