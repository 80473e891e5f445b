"""What a reader sees of a run: figures of a model, and one page that holds everything.

`write_report` reads the files of a run directory and needs no model; `kao.reports.figures`
draws with one.
"""

from kao.reports.page import write_report

__all__ = ["write_report"]
