"""What every distance asks of features, and says where they are not so."""

from torch import Tensor

from kao.errors import DataError


def count_broken(features: Tensor) -> int:
    """Pictures with a feature that is not finite.

    Args:
        features: (N, D).
    """
    return int((~features.isfinite()).any(1).sum())


def refuse_broken(broken: int, n: int, whose: str = "") -> None:
    """Refuse features that are not finite.

    Args:
        broken: Pictures of `count_broken`.
        n: Pictures in all.
        whose: What they are: " (real)", or a space as in " of faces-1".

    Raises:
        DataError: There are such pictures.
    """
    if broken:
        raise DataError(
            f"{broken} of {n} pictures{whose} have features that are not finite, and a distance "
            f"expects numbers: look at those pictures, and take an earlier checkpoint if the model "
            f"has diverged."
        )


def check_widths(*, real: int, drawn: int) -> None:
    """Refuse features of two networks.

    Args:
        real: Numbers that a real picture becomes.
        drawn: Numbers that a drawn one becomes.

    Raises:
        DataError: They differ.
    """
    if real != drawn:
        raise DataError(
            f"Features of {drawn} numbers (drawn) cannot be held against those of {real} (real), "
            f"from another feature network or pictures of another size: look at both through one "
            f"network, at one size."
        )
