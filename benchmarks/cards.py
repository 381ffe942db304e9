"""`python -m benchmarks.cards RESULTS`: write what `lacuna benchmark run` measured on the cards of the weights.

RESULTS is what the runs were given as --destination. A card of a method gets its mean PSNR by suite, set and level; the
card of the scratch detector what it found. Figures count only when they were measured with the very weights of the card
and on whole sets.
"""

from __future__ import annotations

import argparse
import json

from models.benchmarking.detection import LEARNED, detector_identity
from models.registry import METHODS
from models.scratches.detector import WEIGHTS_NAME
from models.weights import load_card, update_metrics, weight_names
from storage.benchmark_cells import CellStore, result_folders
from storage.locations import Location
from tasks.benchmarking import detection
from tasks.benchmarking.tables import ALL, build_board

# Tables of other weights than the method's own are left alone: a shipped weight belongs to the method of its name.
_SHIPPED = {method.card.id for method in METHODS if method.card.weights == method.card.id} & set(weight_names())


def measured_figures(root: Location) -> dict[str, dict[str, dict[str, float]]]:
    """Return {weight: {suite: {"set level": mean PSNR in dB}}} of what was measured below `root`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in result_folders(root):
        description, metrics, timings = CellStore(root.join(name)).read_tables()
        current = {str(row["method"]): row["weights_sha256"] for row in metrics}
        for row in build_board(description, metrics, timings).rows:
            if row.method not in _SHIPPED or row.kind != "measured" or row.dataset == ALL or row.mean is None:
                continue
            if current[row.method] != load_card(row.method).sha256:
                raise SystemExit(f"{name}: {row.method} was measured with other weights; run the suite again")
            levels = found.setdefault(row.method, {}).setdefault(f"{name} (PSNR dB)", {})
            levels[f"{row.dataset} {row.level}"] = round(row.mean, 2)
    return found


def detection_figures(root: Location) -> dict[str, dict[str, float | None]]:
    """Return {set: figures} of the shipped scratch detector; nothing when it was not measured."""
    rows = [row for row in detection.read_detection(root) if row.detector == LEARNED]
    return {
        row.set: {
            "pictures": row.n,
            "roc_auc": row.roc_auc,
            "precision": row.precision,
            "recall": row.recall,
            "iou": row.iou,
            "marked_share_mean": row.marked,
            "marked_share_worst": row.marked_worst,
        }
        for row in rows
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cards", description=__doc__)
    parser.add_argument("results", help="folder or URL given to `lacuna benchmark run` as --destination")
    root = Location(parser.parse_args().results)
    for weight, figures in measured_figures(root).items():
        update_metrics(weight, figures)
        print(f"{weight}: {json.dumps(figures, ensure_ascii=False)}")
    if found := detection_figures(root):
        update_metrics(WEIGHTS_NAME, {"scratch-detection": found, "measured_code": detector_identity(LEARNED)[1][:16]})
        print(f"{WEIGHTS_NAME}: {json.dumps(found)}")


if __name__ == "__main__":
    main()
