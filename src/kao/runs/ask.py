"""What a user asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kao.config import Request, Table


@dataclass(frozen=True)
class Ask:
    """What a user asked for.

    Attributes:
        run: The run directory, which may exist.
        source: The pictures; None takes those of run.toml.
        recipe: Name or path; None takes the one for this machine, or what run.toml says.
        overrides: `key=value` words.
        flags: A table made of command-line flags.
        branch: Directory of a new run that begins with what `run` has learned, and leaves it
            alone; None goes on with `run` itself.
        base: A model whose weights a new run begins with, as `bases.open_base` takes it; None
            begins with noise.
    """

    run: Path
    source: str | None = None
    recipe: str | None = None
    overrides: Sequence[str] = ()
    flags: Table = field(default_factory=dict)
    branch: Path | None = None
    base: str | None = None

    @property
    def home(self) -> Path:
        """The directory that is written to."""
        return self.branch or self.run

    def request(self, recipe: str | None) -> Request:
        """The differences from the defaults, with the source put in."""
        flags = dict(self.flags)
        if self.source is not None:
            flags["data"] = {**flags.get("data", {}), "source": self.source}
        return Request.of(recipe, self.overrides, flags)
