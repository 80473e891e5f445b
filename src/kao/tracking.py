"""Where a run's figures go: metrics.jsonl always, TensorBoard and Weights & Biases beside it."""

import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kao.errors import ConfigError, MissingExtraError
from kao.files import write_text, writing

METRICS = "metrics.jsonl"
_WANDB_ID = "wandb-id.txt"


class Tracker(Protocol):
    """Takes events and pictures of one run."""

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """Take one event.

        Args:
            kind: "start", "train", "samples", "checkpoint" or "end".
            images: Images seen.
            values: JSON values; figures may be one level deep.
        """

    def close(self) -> None:
        """Bring everything to its place."""


class Jsonl:
    """metrics.jsonl: one JSON object a line, on the disk as soon as it is known.

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
            write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))
        with writing(self.path):
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"event": kind, "time": time, "images": images, **values})
        with writing(self.path):
            self._file.write(line + "\n")

    def close(self) -> None:
        """See `Tracker`."""
        with writing(self.path):
            self._file.close()


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


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    """Figures by name, nested ones as "bands/0..2"."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{inner}": number for inner, number in _flat(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[key] = value
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
        if kind == "train":
            for name, number in _flat(values).items():
                self._writer.add_scalar(f"train/{name}", number, images)
        if kind == "samples":
            picture = _picture(self._run / values["file"])
            self._writer.add_image(_weights_of(values["file"]), picture, images)

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
        if not file.exists():
            write_text(file, secrets.token_hex(8))
        try:
            self._session = wandb.init(
                project=project,
                name=run.name,
                dir=str(run),
                config=dict(config),
                id=file.read_text(encoding="utf-8"),
                resume="allow",
            )
        except wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases does not start ({error}): run wandb login, set "
                f"WANDB_MODE=offline, or leave tracking.wandb out."
            ) from error

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        if kind == "train":
            self._session.log({"images": images, **_flat(values)})
        if kind == "samples":
            picture = self._wandb.Image(str(self._run / values["file"]))
            self._session.log({"images": images, f"samples/{_weights_of(values['file'])}": picture})

    def close(self) -> None:
        """See `Tracker`."""
        self._session.finish()


def _weights_of(file: str) -> str:
    """Which weights drew a grid: "ema" for samples/000000640-ema.png."""
    return Path(file).stem.partition("-")[2]


def _picture(path: Path) -> Any:
    """A PNG as uint8 (3, H, W), for TensorBoard."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
