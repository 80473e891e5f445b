"""Steps whose loss lies far above what the run has come to expect."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

_REMEMBERED = 300
"""Steps that say what is usual: many enough for a steady median, few enough to follow a run."""

_NEEDED = 50
"""Steps before anything is judged: the first ones fall too fast for any of them to be usual."""

_DEVIATIONS = 8.0
"""How far above the median a spike lies, in standard deviations of the usual losses' logarithm.

The loss of a batch depends on the noise levels that were drawn for it, so its tails are heavier
than a normal distribution's, which would pass 8 deviations never.
"""

_LEAST = math.log(1.5)
"""A smaller rise than by half is no spike, however calm the losses were."""

_SIGMAS = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class Spike:
    """A step whose loss lies far above the usual.

    Attributes:
        images: Images seen, this step's included.
        loss: Mean over its batch.
        usual: Median of the steps before it.
    """

    images: int
    loss: float
    usual: float


class SpikeWatch:
    """Tells spikes from the scatter that losses have, by their median and its deviation.

    Medians, because the spikes themselves are among what is remembered: a mean would move
    towards them.  What comes back within a few steps is one spike; what stays becomes usual.
    Nothing here is saved: a run that is taken up learns anew what is usual.
    """

    def __init__(self) -> None:
        self._logs: deque[float] = deque(maxlen=_REMEMBERED)
        self._above = False

    def __call__(self, loss: float) -> float | None:
        """Judge one step, and remember it.

        Args:
            loss: Mean over its batch; one that is not a positive number is passed over.

        Returns:
            The usual loss where a spike begins with this step; else None.
        """
        if not 0 < loss < math.inf:
            return None
        log = math.log(loss)
        began, usual = False, 0.0
        if len(self._logs) >= _NEEDED:
            usual = statistics.median(self._logs)
            deviation = _SIGMAS * statistics.median(abs(past - usual) for past in self._logs)
            limit = max(_DEVIATIONS * deviation, _LEAST)
            # It is over when it is half way down: else one that hovers there would be many.
            above = log - usual > (limit / 2 if self._above else limit)
            began, self._above = above and not self._above, above
        self._logs.append(log)
        return math.exp(usual) if began else None
