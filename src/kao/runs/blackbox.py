"""What was going on when a step was skipped, kept for whoever looks into it."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kao.errors import OutputError
from kao.files import write_text, writing
from kao.runs.saving import Notices
from kao.tracking import Tracker
from kao.training.guard import Skipped

FOLDER = "blackbox"


class BlackBox:
    """Writes RUN/blackbox/000012800.json for the step after so many images.

    Numbers that are not finite are written as texts, "nan" and "inf", since JSON has none.

    Args:
        run: The run directory.
        tracker: Told of each step that is skipped.
        notices: Told, too.
    """

    def __init__(self, run: Path, tracker: Tracker, notices: Notices):
        self.run, self.tracker, self.notices = run, tracker, notices

    def __call__(self, skipped: Skipped) -> None:
        """Write down one step; a disk without room is told of."""
        images = skipped.met.images
        file = Path(FOLDER) / f"{images:09d}.json"
        try:
            with writing(self.run / FOLDER):
                (self.run / FOLDER).mkdir(exist_ok=True)
            write_text(self.run / file, json.dumps(_plain(asdict(skipped)), indent=1) + "\n")
        except OutputError as error:
            self.notices.add(f"{error} What was known of a skipped step is lost.")
        values = {
            "loss": skipped.loss,
            "gradient_norm": skipped.met.gradient_norm,
            "layer": skipped.layer,
            "streak": skipped.streak,
            "back_to": skipped.back_to,
            "file": file.as_posix(),
        }
        self.tracker.event("skipped", images, _plain(values))
        self.notices.add(f"{skipped.sentence()} See {self.run / file}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
