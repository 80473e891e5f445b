"""Self-attention over the positions of a feature map.

Shape letters: B batch, C channels, H and W height and width, N = H W positions, K heads,
D width of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.networks.layers import added, group_norm, zeroed


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


class HeadNorm(nn.Module):
    """gain * x / sqrt(mean(x^2) + 1e-6), the mean over the numbers of a head, one gain for each.

    The root mean square norm of Zhang & Sennrich (2019), computed in the dtype of `x`: under
    autocast torch's own layer meets gains of another dtype, for which it has no fused kernel.

    Args:
        width: Of a head.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-6)


class AttentionBlock(nn.Module):
    """Self-attention over all positions, around a skip (Ho et al. 2020, appendix B).

    With `qk_norm` the D numbers of each query and each key of a head are divided by their root mean
    square and multiplied by learned gains, D for the queries and D for the keys, which all heads
    share and which start at 1: see `HeadNorm`.  So products cannot grow with the weights, and
    softmax does not saturate (Dehghani et al. 2023, with LayerNorm in that place).

    Args:
        channels: Channels, a multiple of `heads`.
        heads: Attention heads.
        groups: Groups of the norm, at most.
        eps: Added to variances in the norm.
        skip_scale: What the sum of skip and attention is multiplied by.
        qk_norm: Normalise queries and keys.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        groups: int,
        eps: float = 1e-5,
        skip_scale: float = 1.0,
        qk_norm: bool = False,
    ):
        super().__init__()
        self.heads, self.skip_scale = heads, skip_scale
        self.norm = group_norm(channels, groups, eps=eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.norm_q = HeadNorm(channels // heads) if qk_norm else None
        self.norm_k = HeadNorm(channels // heads) if qk_norm else None
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q_BKDN, k_BKDN, v_BKDN = qkv.unbind(1)
        if self.norm_q is not None and self.norm_k is not None:
            q_BKDN, k_BKDN = self.norm_q(q_BKDN.mT).mT, self.norm_k(k_BKDN.mT).mT
        seen = attend(q_BKDN, k_BKDN, v_BKDN).reshape(B, C, H, W)
        return added(x, self.out(seen), self.skip_scale)
