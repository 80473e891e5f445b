"""[conditions]: what the network is told of a picture, beside how noisy it is."""

from dataclasses import dataclass

from kao.errors import ConfigError


@dataclass(frozen=True)
class ConditionsConfig:
    """[conditions]: whether the network is told the class of each picture.

    Attributes:
        classes: Tell the first-level folder that a picture is from.
        names: Of the classes, in the order of their numbers; filled in when a run starts.
        counts: Pictures of each, filled in likewise: where nothing else is asked for, classes are
            drawn in these shares.  Empty: all alike.
        drop: Share of the pictures whose class is kept back while training, so that the model can
            draw without one, too, and be guided away from that (Ho & Salimans 2022, algorithm 1).

    Raises:
        ConfigError: A value is out of range, or the names and counts are none of two classes or
            more.
    """

    classes: bool = False
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    drop: float = 0.1

    def __post_init__(self) -> None:
        """Refuse shares that are none, and names that name no classes."""
        if not 0 <= self.drop < 1:
            raise ConfigError(
                f"conditions.drop = {self.drop}; expected a share from 0 up and below 1: 0.1 is "
                f"customary."
            )
        if len(self.names) == 1 or len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"conditions.names = {list(self.names)}; expected two classes or more, each once."
            )
        if self.counts and (len(self.counts) != len(self.names) or not any(self.counts)):
            raise ConfigError(
                f"conditions.counts = {list(self.counts)}; expected the pictures of each of the "
                f"{len(self.names)} conditions.names, or nothing."
            )
        if any(count < 0 for count in self.counts):
            raise ConfigError(
                f"conditions.counts = {list(self.counts)}; expected numbers from 0 up."
            )
