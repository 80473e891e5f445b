"""Tables beside pictures: captions and labels in CSV or JSON lines.

Two vocabularies are read, this project's and that of Hugging Face's imagefolder:

    file    file_name    text    caption    label

One column names the picture; caption (or text) and label may be absent; others are not read.  The
dataset.json of StyleGAN and EDM is read, too: {"labels": [["00000/img00000000.png", 5], ...]}.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import NamedTuple

from kao.errors import DataError

_FILE = ("file", "file_name")
_CAPTION = ("caption", "text")
_LABEL = "label"
_READ = {*_FILE, *_CAPTION, _LABEL, ""}  # numbers of rows have no name


class Row(NamedTuple):
    """What a table says about one picture; None for a cell that is empty or absent.

    Attributes:
        file: Which one; empty where the row does not say.
        caption: What it shows.
        label: Its class.
        others: Columns that are not read.
    """

    file: str
    caption: str | None
    label: str | None
    others: frozenset[str] = frozenset()


def rows(data: bytes, name: str) -> Iterator[Row]:
    """Read a table.

    Args:
        data: Content of a .csv file with a head line, of a .jsonl file, or of a dataset.json, of
            which labels that are no whole numbers are left out.  UTF-8.
        name: Of the file: its ending says which of the three it is, and goes into error messages.

    Yields:
        Rows that are not empty, in order.

    Raises:
        DataError: It is not UTF-8, not CSV or JSON, or has no column that names the picture.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    if name.lower().endswith(".json"):
        yield from _dataset(text)
        return
    records = _json_records(text, name) if name.lower().endswith(".jsonl") else _csv(text, name)
    for record in records:
        if any(record.values()):
            file = (_cell(record, *_FILE) or "").replace("\\", "/").removeprefix("./")
            others = frozenset(record) - _READ
            yield Row(file, _cell(record, *_CAPTION), _cell(record, _LABEL), others)


def _dataset(text: str) -> Iterator[Row]:
    """Labels of a dataset.json; none where it is another program's file of that name."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    labels = content.get("labels") if isinstance(content, dict) else None
    for entry in labels if isinstance(labels, list) else ():
        match entry:
            case [str(file), bool() | float() | list() | None]:
                yield Row(file.replace("\\", "/"), None, None)
            case [str(file), int(label)]:
                yield Row(file.replace("\\", "/"), None, str(label))


def _cell(record: dict[str, str], *columns: str) -> str | None:
    return next((record[column] for column in columns if record.get(column)), None)


def _csv(text: str, name: str) -> Iterator[dict[str, str]]:
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        head = [column.strip().lower() for column in next(lines, [])]
        _check_columns(head, name)
        for line in lines:
            # Short lines leave columns out, long ones say more than was asked: both pass.
            yield {column: cell.strip() for column, cell in zip(head, line, strict=False)}
    except csv.Error as error:
        raise DataError(
            f"{name}, line {lines.line_num}, is not CSV ({error}): mend or delete the line."
        ) from error


def _json_records(text: str, name: str) -> Iterator[dict[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # the latter for [[[[...
            raise DataError(
                f"{name}, line {number}, is not JSON ({error}): mend or delete the line."
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{name}, line {number}, holds no JSON object: expected "
                f'{{"file_name": ..., "text": ...}}.'
            )
        cells = {
            key.strip().lower(): str(value).strip() if isinstance(value, str | int) else ""
            for key, value in record.items()
        }
        _check_columns(list(cells), f"{name}, line {number},")
        yield cells


def _check_columns(columns: list[str], name: str) -> None:
    if not set(_FILE) & set(columns):
        raise DataError(
            f"{name} has no column that names the picture: expected 'file' or 'file_name', "
            f"met {', '.join(columns) or 'nothing'}. Mend it, or rename or remove the file if it "
            f"is no table of captions."
        )
