"""One place where seeds are mixed: a number from a few numbers, and nothing random in between."""

import numpy as np


def mixed_seed(*parts: int) -> int:
    """A 63-bit seed from non-negative whole numbers, through NumPy's SeedSequence (O'Neill 2015).

    Neighbouring parts give unrelated seeds, so (seed, images seen, purpose) can be mixed without
    one stream overlapping another.

    Args:
        parts: Non-negative; their order counts.

    Returns:
        A number in 0 .. 2**63 - 1, the same on every machine.
    """
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0]) >> 1
