"""What was going on when a step was skipped, kept for whoever looks into it."""

import json
from dataclasses import asdict
from pathlib import Path

from kao.checkpoints import Snapshot
from kao.errors import OutputError
from kao.files import write_text, writing
from kao.runs.saving import Notices
from kao.tracking import Tracker, finite
from kao.training.guard import Skipped

FOLDER = "blackbox"


class BlackBox:
    """Writes RUN/blackbox/000012800.json for the step after so many images.

    Where the run goes back, the snapshots since then are removed: what they hold is given up, and
    averages that are made after training would have a part of it.

    Numbers that are not finite are written as null, since JSON has none.

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
            write_text(self.run / file, json.dumps(finite(asdict(skipped)), indent=1) + "\n")
        except OutputError as error:
            self.notices.add(f"{error} What was known of a skipped step is lost.")
        if skipped.back_to is not None:
            self._drop_snapshots(skipped.back_to)
        values = {
            "loss": skipped.loss,
            "gradient_norm": skipped.met.gradient_norm,
            "layer": skipped.layer,
            "streak": skipped.streak,
            "back_to": skipped.back_to,
            "file": file.as_posix(),
        }
        self.tracker.event("skipped", images, finite(values))
        self.notices.add(f"{skipped.sentence()} See {self.run / file}.")

    def _drop_snapshots(self, back_to: int) -> None:
        try:
            Snapshot.drop(self.run, newer_than=back_to)
        except OutputError as error:
            self.notices.add(f"{error} Averages of snapshots past {back_to:,} images are spoilt.")
