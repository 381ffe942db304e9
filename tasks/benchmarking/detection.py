"""Measuring scratch detectors, keeping what was measured, and showing it beside the leaderboards."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from models.benchmarking.detection import (
    TITLES,
    DetectionRow,
    check_detector,
    data_identity,
    detector_identity,
    measure_detector,
)
from storage.benchmark_sets import BenchmarkSetError
from storage.locations import Location
from tasks.benchmarking.texts import escape_latex, markdown_table, number

FILE = "detection.json"
HEAD = ("detector", "set", "n", "ROC AUC", "precision", "recall", "IoU", "marked, %", "worst picture, %")


def measure_detection(
    detectors: Sequence[str], *, root: Location, data: Location, device: str, limit: int | None = None
) -> tuple[list[DetectionRow], int]:
    """Return (rows, how many detectors were measured now); what was measured before on the same data is read.

    Detectors measured here before stay in the table. Raises ValueError for an unknown detector or data that is no
    local folder, FileNotFoundError without the sets.
    """
    for name in detectors:
        check_detector(name)
    if not data.is_local:
        raise ValueError(f"--data: got {data}, expected a local folder for scratch-detection; copy the sets to a disk")
    pictures = data_identity(data.local_path)
    kept = {str(entry["detector"]): entry for entry in _entries(root)}
    wanted = list(dict.fromkeys([*detectors, *(name for name in kept if name in TITLES)]))
    entries, measured = [], 0
    for name in wanted:
        parts = [detector_identity(name), pictures, limit, device]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        entry = kept.get(name)
        if entry is None or entry["key"] != key:
            rows = measure_detector(name, data=data.local_path, device=device, limit=limit)
            entry, measured = {"detector": name, "key": key, "rows": [asdict(row) for row in rows]}, measured + 1
        entries.append(entry)
    entries.sort(key=lambda entry: str(entry["detector"]))
    root.join(FILE).write_bytes_atomic((json.dumps(entries, indent=1, sort_keys=True) + "\n").encode())
    return _rows(entries), measured


def read_detection(root: Location) -> list[DetectionRow]:
    """Return what was measured below `root`; nothing when detection was not."""
    return _rows(_entries(root))


def _entries(root: Location) -> list[dict[str, Any]]:
    try:
        found = json.loads(root.join(FILE).read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise BenchmarkSetError(f"{root.join(FILE)} cannot be read ({error}); delete it and measure again.") from error
    return list(found)


def _rows(entries: Sequence[dict[str, Any]]) -> list[DetectionRow]:
    return [DetectionRow(**row) for entry in entries for row in entry["rows"]]


def cells(row: DetectionRow) -> list[str]:
    """Return one line of the table, in the order of `HEAD`."""
    measured = [number(value, 4) for value in (row.roc_auc, row.precision, row.recall, row.iou)]
    return [
        row.detector,
        row.set,
        str(row.n),
        *measured,
        number(row.marked * 100, 3),
        number(row.marked_worst * 100, 2),
    ]


def markdown(rows: Sequence[DetectionRow]) -> str:
    """Return the table as Markdown."""
    return "\n".join(["# Scratch detection", "", *markdown_table(HEAD, [cells(row) for row in rows])])


def csv_text(rows: Sequence[DetectionRow]) -> str:
    """Return the table in full precision; an empty field does not apply."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    names = [field.name for field in fields(DetectionRow)]
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if (value := getattr(row, name)) is None else value for name in names])
    return sink.getvalue()


def latex(rows: Sequence[DetectionRow]) -> str:
    """Return the table for booktabs."""
    lines = [r"\begin{tabular}{ll" + "r" * (len(HEAD) - 2) + "}", r"\toprule"]
    lines += [" & ".join(escape_latex(name) for name in HEAD) + r" \\", r"\midrule"]
    lines += [" & ".join(escape_latex(cell) for cell in cells(row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
