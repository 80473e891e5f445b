"""Which published model a run goes back to, and under which licence, as its log tells.

It is written down when a run begins: later a folder may be gone, or be where a name of the hub was.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from kao.files import at_home
from kao.tracking import read_events

_HUB, _LICENCE = "hub", "licence"
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Provenance:
    """The published model that a run was imported from or, by any number of steps, tuned from.

    Attributes:
        hub: Its owner/name on the Hugging Face hub; "" where it is not from there.
        licence: As was told with it; "" where it was not.
    """

    hub: str = ""
    licence: str = ""

    @classmethod
    def of_import(cls, origin: str, licence: str | None) -> "Provenance":
        """That of a model which was opened just now.

        Args:
            origin: What it was opened by, with "@" and a revision where one was asked for.  What
                is on this machine comes before the hub, as where a model is opened.
            licence: As was told with it.
        """
        name = origin.partition("@")[0]
        here = at_home(origin).exists()
        return cls(name if _HUB_NAME.fullmatch(name) and not here else "", licence or "")

    @classmethod
    def of_run(cls, run: Path) -> "Provenance":
        """That of a run; empty where it began with noise, or its log does not tell."""
        for event in read_events(run):
            if event["event"] == "start" and (_HUB in event or _LICENCE in event):
                return cls(str(event.get(_HUB) or ""), str(event.get(_LICENCE) or ""))
        return cls()

    def told(self) -> dict[str, str | None]:
        """What the first event of a run says of it."""
        return {_HUB: self.hub or None, _LICENCE: self.licence or None}
