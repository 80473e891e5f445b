"""Where a run's figures go: metrics.jsonl always, TensorBoard and Weights & Biases beside it."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kao.errors import ConfigError, MissingExtraError
from kao.files import readable, write_text, writing

METRICS = "metrics.jsonl"
WANDB = "wandb"
"""The folder in a run directory that Weights & Biases makes when it starts."""

_WANDB_ID = "wandb-id.txt"

FIGURES = ("train", "held_out", "evaluation", "spike", "skipped", "snapshot", "warning")
"""Events whose figures are plotted, as "train/loss" or "held_out/gap/bands/0..2", under the same
names everywhere."""


class Tracker(Protocol):
    """Takes events and pictures of one run."""

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """Take one event.

        Args:
            kind: "start", "samples", "checkpoint", "verdict", "end", or one of `FIGURES`.
            images: Images seen.
            values: JSON values; figures may lie in tables of any depth.
        """

    def close(self) -> None:
        """Bring everything to its place."""


class Jsonl:
    """metrics.jsonl: one JSON object a line, on the disk as soon as it is known.

    Figures that are not finite are written as null.

    Args:
        run: The run directory.
        images: Where the run takes up; later lines, of steps that are now done again, go.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, run: Path, *, images: int):
        self.path = run / METRICS
        if self.path.exists():
            kept = [e for e in read_events(run) if e.get("images", 0) <= images]
            write_text(self.path, "".join(_line(event) for event in kept))
        with writing(self.path):
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = _line({"event": kind, "time": time, "images": images, **values})
        with writing(self.path):
            self._file.write(line)

    def close(self) -> None:
        """See `Tracker`."""
        with writing(self.path):
            self._file.close()


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(finite(event), allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Values for JSON: a number that is not finite, for which JSON has no word, becomes null.

    Args:
        value: A number, a text, or tables and lists of them of any depth.
    """
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_events(run: Path) -> list[dict[str, Any]]:
    """The events of a run, in order; a line that a kill cut short is passed over.

    Args:
        run: The run directory; without a metrics.jsonl there are no events.
    """
    path = run / METRICS
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def _readable(value: Any) -> Any:
    """JSON values whose texts have an encoding, as a service wants them."""
    if isinstance(value, Mapping):
        return {name: _readable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(inner) for inner in value]
    return readable(value) if isinstance(value, str) else value


def _figures(kind: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an event by name; none of an event that is not plotted."""
    return _flat(kind, values) if kind in FIGURES else {}


def _flat(name: str, values: Mapping[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{name}/{readable(key)}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{name}/{readable(key)}"] = value
    return flat


class TensorBoard:
    """Event files in RUN/tensorboard; the horizontal axis is images seen.

    Args:
        run: The run directory.
        images: Where the run takes up; later points are dropped.
    """

    def __init__(self, run: Path, *, images: int):
        from torch.utils.tensorboard import SummaryWriter

        with writing(run / "tensorboard"):
            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=images + 1)
        self._run = run

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        for name, number in _figures(kind, values).items():
            self._writer.add_scalar(name, number, images)
        if kind == "samples":
            picture = _picture(self._run / values["file"])
            self._writer.add_image(_name_of(values["file"]), picture, images)

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class Wandb:
    """Weights & Biases; the same run goes on after a resume.

    Args:
        run: The run directory; its name is the run's name there, and wandb-id.txt in it says
            which run that is.
        project: Project name.
        config: The configuration as plain values.

    Raises:
        MissingExtraError: wandb is not installed.
        OutputError: wandb-id.txt cannot be written.
        ConfigError: It does not start: nobody is logged in, or there is no network.
    """

    def __init__(self, run: Path, *, project: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("wandb", extra="wandb", purpose="track a run there") from None
        os.environ.setdefault("WANDB_SILENT", "true")
        self._wandb, self._run = wandb, run
        file = run / _WANDB_ID
        known = file.read_text(encoding="utf-8") if file.exists() else secrets.token_hex(8)
        try:
            self._session = wandb.init(
                project=project,
                name=readable(run.name),
                dir=str(run),
                config=_readable(config),
                id=known,
                resume="allow",
            )
            # Else the axis would count calls, of which some events make more than others.
            self._session.define_metric("images")
            self._session.define_metric("*", step_metric="images")
        except wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases does not start ({error}): run wandb login, set "
                f"WANDB_MODE=offline, or leave tracking.wandb out."
            ) from error
        if not file.exists():
            write_text(file, known)

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        logged: dict[str, Any] = dict(_figures(kind, values))
        if kind == "samples":
            file = values["file"]
            logged = {_name_of(file): self._wandb.Image(str(self._run / file))}
        if logged:
            self._session.log({"images": images, **logged})

    def close(self) -> None:
        """See `Tracker`."""
        self._session.finish()


def _name_of(file: str) -> str:
    """What a grid is called, by the weights that drew it: samples/000000640-ema.png, samples/ema.

    The images seen are the axis and no part of a name.
    """
    return f"samples/{Path(file).stem.partition('-')[2]}"


def _picture(path: Path) -> Any:
    """A PNG as uint8 (3, H, W), for TensorBoard."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
