"""Writes the leaderboard of everything measured below a folder: HTML, Markdown, CSV and LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

from storage.benchmark_cells import CellStore, result_folders
from storage.benchmark_sets import BenchmarkSetError
from storage.locations import Location
from tasks.benchmarking import detection
from tasks.benchmarking.page import html
from tasks.benchmarking.scoring import crop_file
from tasks.benchmarking.tables import Board, build_board
from tasks.benchmarking.texts import csv_text, latex, markdown, timings_csv, timings_latex, timings_markdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """What was written: URIs of the files, and the boards themselves."""

    files: tuple[str, ...]
    boards: tuple[Board, ...]


def read_boards(root: Location) -> list[Board]:
    """Return one board per suite or set measured below `root`."""
    names = result_folders(root)
    return [build_board(*CellStore(root.join(name)).read_tables()) for name in names]


def write_leaderboard(root: Location) -> Leaderboard:
    """Write leaderboard.* and timings.*, and detection.* where detectors were measured, below `root`.

    leaderboard.md, .csv and .tex repeat to the byte. BenchmarkSetError when nothing was measured there.
    """
    boards, detectors = read_boards(root), detection.read_detection(root)
    if not boards and not detectors:
        raise BenchmarkSetError(
            f"There is no result below {root}; expected the --destination of `lacuna benchmark run`."
        )

    def crop(suite: str, dataset: str, level: str, method: str) -> bytes | None:
        return CellStore(root.join(suite)).crop(crop_file(dataset, level, method))

    texts = {
        "leaderboard.html": html(boards, crop=crop, detectors=detectors),
        "leaderboard.md": markdown(boards),
        "leaderboard.csv": csv_text(boards),
        "leaderboard.tex": latex(boards),
        "timings.md": timings_markdown(boards),
        "timings.csv": timings_csv(boards),
        "timings.tex": timings_latex(boards),
    }
    if detectors:
        texts["detection.md"] = detection.markdown(detectors)
        texts["detection.csv"] = detection.csv_text(detectors)
        texts["detection.tex"] = detection.latex(detectors)
    for name, text in texts.items():
        root.join(name).write_bytes_atomic(text.encode())
    return Leaderboard(files=tuple(root.join(name).uri for name in texts), boards=tuple(boards))
