"""What a run directory says about its run, read from its files alone."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kao.errors import CheckpointError
from kao.files import read_text
from kao.tracking import METRICS, read_events
from kao.training import band_names

Event = Mapping[str, Any]
"""One line of metrics.jsonl."""

Point = tuple[float, float]
"""(images seen, value), both finite."""

BANDS = tuple(band_names())
"""Bands of log-snr by which losses are told apart, noisiest first."""


@dataclass(frozen=True)
class Grid:
    """A grid of samples.

    Attributes:
        images: Pictures that the model had seen.
        path: The PNG.
        classes: Those that its columns show in turn; empty where they do not.
    """

    images: int
    path: Path
    classes: tuple[str, ...] = ()


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
        kept: Events of all kinds, in order.  What a killed session did after the checkpoint
            that the next one resumed from is left out: no weight remembers it.
        grids: Grids of the averaged weights, or of the raw ones where there are no others,
            by images seen; those of steps that were done again are left out, too.
    """

    path: Path
    configuration: str
    sessions: Sequence[Session]
    kept: Sequence[Event]
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
        kept = _kept(events)
        return cls(
            path=path,
            configuration=_text(path / "run.toml"),
            sessions=_sessions(events),
            kept=kept,
            grids=_grids(path / "samples", told=[e for e in kept if e["event"] == "samples"]),
        )

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def images(self) -> int:
        """Images seen when the run stopped, or at its last line."""
        last = self.sessions[-1].last if self.sessions else 0
        return max([last, *(step["images"] for step in self.of("train")[-1:])])

    @property
    def seconds(self) -> float:
        """Seconds of training up to the last line, all sessions together."""
        end = self.sessions[-1].end if self.sessions else None
        timed = [*self.of("train"), *([end] if end else [])]
        return max((float(event.get("seconds", 0)) for event in timed), default=0.0)

    def of(self, kind: str) -> list[Event]:
        """The events of a kind, by images seen."""
        return sorted((e for e in self.kept if e["event"] == kind), key=lambda e: e["images"])

    def curve(self, path: str, *, kind: str = "train") -> list[Point]:
        """The finite values of a figure, by images seen.

        Args:
            path: Its name, with those of the tables it lies in: "loss", "bands/0..2".
            kind: Of the events that hold it.
        """
        *tables, key = path.split("/")
        points = []
        for event in self.of(kind):
            inner = event
            for table in tables:
                inner = mapping(inner, table)
            value = inner.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                points.append((float(event["images"]), float(value)))
        return points

    def keys(self, table: str, *, kind: str = "train") -> list[str]:
        """The names that a table of the events ever held, in the order in which they came."""
        return list(dict.fromkeys(key for event in self.of(kind) for key in mapping(event, table)))


def mapping(event: Event, key: str) -> Mapping[str, Any]:
    """The table under `key` of an event; an empty one where there is none."""
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError):
        return ""


def _sessions(events: Sequence[Event]) -> list[Session]:
    sessions: list[Session] = []
    for event in events:
        if event["event"] == "start":
            sessions.append(Session(event, None, event["images"]))
        elif sessions:
            end = event if event["event"] == "end" else sessions[-1].end
            last = max(sessions[-1].last, event["images"])
            sessions[-1] = Session(sessions[-1].start, end, last)
    return sessions


def _kept(events: Sequence[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        if event["event"] == "start":
            kept = [past for past in kept if past["images"] <= event["images"]]
        kept.append(event)
    return kept


def _grids(folder: Path, *, told: Sequence[Event]) -> list[Grid]:
    """Those that events tell of; all, where none tells of any."""
    kinds: dict[str, list[Grid]] = {"ema": [], "raw": []}
    names = {Path(str(event.get("file"))).name: event.get("classes") or () for event in told}
    for path in sorted(folder.glob("*.png")):
        if names and path.name not in names:
            continue
        if found := re.fullmatch(r"(\d+)-(ema|raw)", path.stem):
            classes = tuple(map(str, names.get(path.name, ())))
            kinds[found[2]].append(Grid(int(found[1]), path, classes))
    return sorted(kinds["ema"] or kinds["raw"], key=lambda grid: grid.images)
