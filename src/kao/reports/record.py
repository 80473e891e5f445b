"""What a run directory says about its run, read from its files alone."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kao.errors import CheckpointError
from kao.tracking import METRICS, read_events

Event = Mapping[str, Any]
"""One line of metrics.jsonl."""

Point = tuple[float, float]
"""(images seen, value), both finite."""

BANDS = ("<-4", "-4..-2", "-2..0", "0..2", "2..4", ">4")
"""Bands of log-snr by which losses are told apart, noisiest first."""


@dataclass(frozen=True)
class Grid:
    """A grid of samples.

    Attributes:
        images: Pictures that the model had seen.
        path: The PNG.
    """

    images: int
    path: Path


@dataclass(frozen=True)
class Session:
    """One stretch of training, from a start to a stop.

    Attributes:
        start: The "start" event.
        end: The "end" event; None if the process was killed or is still at work.
        last: Images seen at the session's last line.
    """

    start: Event
    end: Event | None
    last: int


@dataclass(frozen=True)
class RunRecord:
    """A run directory as read; what is missing is empty.

    Attributes:
        path: The run directory.
        configuration: The text of run.toml, or "".
        sessions: In order of time.
        train: "train" events by images seen.  What a killed session did after the checkpoint
            that the next one resumed from is left out: no weight remembers it.
        grids: Grids of the averaged weights, or of the raw ones where there are no others,
            by images seen.
    """

    path: Path
    configuration: str
    sessions: Sequence[Session]
    train: Sequence[Event]
    grids: Sequence[Grid]

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read the run directory `path`.

        Raises:
            CheckpointError: It is no run directory: neither run.toml nor metrics.jsonl is there.
        """
        if not ((path / "run.toml").is_file() or (path / METRICS).is_file()):
            raise CheckpointError(
                f"{path} holds neither run.toml nor metrics.jsonl, so it is not a run: "
                "name a directory that `kao train` wrote."
            )
        # An event of another shape than the trackers write was not written by one.
        events = [e for e in read_events(path) if isinstance(e.get("images"), int)]
        return cls(
            path=path,
            configuration=_text(path / "run.toml"),
            sessions=_sessions(events),
            train=_kept_steps(events),
            grids=_grids(path / "samples"),
        )

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def images(self) -> int:
        """Images seen when the run stopped, or at its last line."""
        last = self.sessions[-1].last if self.sessions else 0
        return max([last, *(step["images"] for step in self.train[-1:])])

    @property
    def seconds(self) -> float:
        """Seconds of training up to the last line, all sessions together."""
        end = self.sessions[-1].end if self.sessions else None
        timed = [*self.train, *([end] if end else [])]
        return max((float(event.get("seconds", 0)) for event in timed), default=0.0)

    def curve(self, key: str) -> list[Point]:
        """The finite values of a "train" key, by images seen."""
        return _finite((event["images"], event.get(key)) for event in self.train)

    def band(self, name: str) -> list[Point]:
        """The finite losses of one of `BANDS`, by images seen."""
        return _finite((event["images"], mapping(event, "bands").get(name)) for event in self.train)


def mapping(event: Event, key: str) -> Mapping[str, Any]:
    """The table under `key` of an event; an empty one where there is none."""
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sessions(events: Sequence[Event]) -> list[Session]:
    sessions: list[Session] = []
    for event in events:
        if event["event"] == "start":
            sessions.append(Session(event, None, event["images"]))
        elif sessions:
            end = event if event["event"] == "end" else sessions[-1].end
            sessions[-1] = Session(sessions[-1].start, end, event["images"])
    return sessions


def _kept_steps(events: Sequence[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        if event["event"] == "start":
            kept = [step for step in kept if step["images"] <= event["images"]]
        elif event["event"] == "train":
            kept.append(event)
    return kept


def _grids(folder: Path) -> list[Grid]:
    kinds: dict[str, list[Grid]] = {"ema": [], "raw": []}
    for path in sorted(folder.glob("*.png")):
        if found := re.fullmatch(r"(\d+)-(ema|raw)", path.stem):
            kinds[found[2]].append(Grid(int(found[1]), path))
    return sorted(kinds["ema"] or kinds["raw"], key=lambda grid: grid.images)


def _finite(pairs: Iterable[tuple[int, Any]]) -> list[Point]:
    return [
        (float(x), float(y)) for x, y in pairs if isinstance(y, int | float) and math.isfinite(y)
    ]
