"""How long a run is: a number of images, of steps, or of minutes."""

import re
from dataclasses import dataclass

from kao.errors import ConfigError

# A comma stands between thousands only: 1,5M, as half of the world writes it, is not 15M.
_WHOLE = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*"
_NUMBER = rf"((?:{_WHOLE})(?:\.[0-9]*)?|\.[0-9]+)"
_PATTERN = re.compile(rf"\s*{_NUMBER}\s*([kM]?)\s*(image|step|minute|hour)s?\s*")

_MOST_RESERVED = 0.25

_MOST = 10**15
"""Images: each number up to it, and what it is multiplied by, is exact in float64."""


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        images: Images seen.
        seconds: Seconds spent training, over all starts of the run.
    """

    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Length:
    """How long a run is; exactly one of the two is positive.

    Attributes:
        images: Images to see; 0 if the run is measured in minutes.
        minutes: Minutes to train; 0 if the run is measured in images.
    """

    images: int = 0
    minutes: float = 0.0

    @classmethod
    def parse(cls, text: str, *, batch: int) -> "Length":
        """Read "10 minutes", "2 hours", "1.5M images", "100k images" or "1000 steps".

        Args:
            text: A number, perhaps k or M, and a unit.
            batch: Images a step.

        Raises:
            ConfigError: It is none of these, not more than 0, or too much.
        """
        match = _PATTERN.fullmatch(text)
        number = float(re.sub("[_,]", "", match[1])) if match else 0.0
        if not match or number <= 0:
            raise ConfigError(
                f'length = "{text}"; expected a number above 0 and a unit, such as "10 minutes", '
                f'"100k images" or "1000 steps".'
            )
        number *= {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]
        if number * batch > _MOST:
            raise ConfigError(
                f'length = "{text}"; expected fewer: a run sees {_MOST:.0e} images at most.'
            )
        match match[3]:
            case "minute":
                return cls(minutes=number)
            case "hour":
                return cls(minutes=60 * number)
            case "step":
                return cls(images=max(1, round(number)) * batch)
            case _:
                return cls(images=max(1, round(number)))

    def done(self, progress: Progress, *, reserve: float = 0.0) -> float:
        """Share of the run that is behind, 0..1.

        A run in images does not look at the clock, so that it can be repeated to the bit; a run
        in minutes looks at nothing else, so that its learning rate reaches zero on time on any
        machine, however its speed changes.

        Args:
            progress: Where the run is.
            reserve: Seconds to keep for what follows the last step; for runs in minutes, at most
                a quarter of them.
        """
        if self.images:
            return min(1.0, progress.images / self.images)
        budget = 60 * self.minutes
        return min(1.0, progress.seconds / (budget - min(reserve, _MOST_RESERVED * budget)))

    def expected_images(self, images_per_second: float) -> int:
        """Images that the whole run will see at that speed."""
        return self.images or max(1, round(60 * self.minutes * images_per_second))
