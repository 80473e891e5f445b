"""Values of options that several networks have, and what is said of those that cannot be."""

from kao.errors import ConfigError


def check_dropout(dropout: float) -> None:
    """Refuse what is no share of activations, 0 or more and below 1, with a ConfigError."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"network.dropout = {dropout}; expected 0 or more, below 1.")


def check_groups(groups: int) -> None:
    """Refuse what is no number of groups of a GroupNorm with a ConfigError."""
    if groups not in (1, 2, 4, 8, 16, 32):
        raise ConfigError(f"network.groups = {groups}; expected 1, 2, 4, 8, 16 or 32.")


def check_even_width(width: int) -> None:
    """Refuse a width that sines and cosines cannot share with a ConfigError."""
    if width % 2 or width < 4:
        raise ConfigError(
            f"network.width = {width}; the sinusoidal embedding needs an even width of at least 4: "
            f"try {max(4, width + width % 2)}."
        )
