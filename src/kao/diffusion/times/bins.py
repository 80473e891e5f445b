"""What a run learns about its times: running averages over bins, and the densities they ask for.

The range of times is cut into bins of equal uniform probability.  `RunningBins` averages a number
per image over each; `root_mean` and `slope` turn the averages into how often each bin should be
drawn.  `LearnedTimes` draws by them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningBins(nn.Module):
    """The running average of one number per image in each of K bins.

    A bin's average is the plain mean until it has seen `memory` images; from then on each new
    image has the weight 1 / memory and older ones fade exponentially.  Images of one batch count
    alike, whatever their order, so the state is a function of the batches.

    Args:
        count: K.
        memory: Images that an average reaches back, at least 1.

    Attributes:
        seen: Images that fell into each bin, (K,), float64 on the CPU.
        average: Their running average, (K,), float64 on the CPU; 0 in a bin never seen.
    """

    seen: Tensor
    average: Tensor

    def __init__(self, count: int, *, memory: int):
        super().__init__()
        self.count, self.memory = count, memory
        for name in ("seen", "average"):
            # The device is named, since the rest of a model may be built on the meta device.
            self.register_buffer(name, torch.zeros(count, dtype=torch.float64, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningBins":
        # Times are drawn on the CPU in float64 whatever the network computes in, so `.to`, `.half`
        # and `.cuda` of a module around this one must pass it by.
        return self

    def update(self, bins: Tensor, values: Tensor) -> None:
        """Take a batch in.  Values that are not finite are left out: one would stay for good.

        Args:
            bins: Bin of each image, int64, (B,), in 0..K-1.
            values: The number of each image, float64, (B,).
        """
        finite = values.isfinite()
        bins, values = bins[finite], values[finite]
        new = torch.bincount(bins, minlength=self.count).double()
        total = torch.bincount(bins, weights=values, minlength=self.count)
        known = self.seen.clamp(max=self.memory - 1)
        self.average += (total - new * self.average) / (known + new).clamp(min=1)
        self.seen += new


def root_mean(average: Tensor) -> Tensor:
    """The square root of each average: the density of least variance for averages of L^2.

    Drawing with density p and weighting by 1 / p leaves the mean of L alone, and its variance is
    least for p proportional to sqrt(E[L^2]) (Nichol & Dhariwal 2021, eq. 18).

    Args:
        average: Of the squared loss, (K,), float64, >= 0.

    Returns:
        Unnormalised density, (K,), float64, >= 0.
    """
    return average.sqrt()


def isotonic(values: Tensor) -> Tensor:
    """The nearest curve, in least squares, that never falls (isotonic regression).

    By the max-min formula (Robertson, Wright & Dykstra 1988):
    g_k = max over i <= k of min over j >= k of the mean of values i..j.

    Args:
        values: (K,), float64.

    Returns:
        (K,), float64, each at least the one before.
    """
    count = len(values)
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    first, last = torch.arange(count)[:, None], torch.arange(count)[None, :]
    means = (total[1:][None, :] - total[:-1][:, None]) / (last - first + 1).clamp(min=1)
    means = means.masked_fill(last < first, torch.inf)
    # lowest[i, k] = min over j >= k; the maximum over i <= k is taken down the columns.
    lowest = means.flip(1).cummin(1).values.flip(1).masked_fill(last < first, -torch.inf)
    return lowest.max(0).values.cummax(0).values


def slope(average: Tensor, *, smoothing: float) -> Tensor:
    """How much a curve rises across each bin, after making it monotone and smooth.

    The curve is known at the middles of the bins.  It starts at 0, since a clean image has no
    error, is interpolated between middles, and goes on straight across the last half bin.

    Args:
        average: The curve, (K,), K >= 2, float64, >= 0; made non-decreasing by `isotonic`.
        smoothing: Standard deviation, in bins, of the Gaussian over which the rises are averaged;
            above 0.

    Returns:
        Unnormalised density, (K,), float64, >= 0.
    """
    curve = isotonic(average)
    inner = (curve[1:] + curve[:-1]) / 2
    end = curve[-1:] + (curve[-1:] - curve[-2:-1]) / 2
    rise = torch.cat([curve.new_zeros(1), inner, end]).diff()
    bins = torch.arange(len(rise), dtype=torch.float64)
    kernel = (-(((bins[:, None] - bins) / smoothing) ** 2) / 2).exp()
    # Each row is normalised by what lies inside the range, so a straight curve stays uniform.
    return kernel @ rise / kernel.sum(1)
