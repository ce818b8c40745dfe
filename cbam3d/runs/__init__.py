"""The product as a library: what the commands do, with the same words and defaults."""

from cbam3d.runs.comparison import IncompleteComparison, compare
from cbam3d.runs.cost import measure_cost
from cbam3d.runs.dataset import open_dataset
from cbam3d.runs.dry_run import dry_run
from cbam3d.runs.feature_table import features
from cbam3d.runs.predictor import Predictor, load_run
from cbam3d.runs.preparation import prepare
from cbam3d.runs.results import compare_runs
from cbam3d.runs.run import Run, open_run
from cbam3d.runs.training import train

__all__ = [
    "IncompleteComparison",
    "Predictor",
    "Run",
    "compare",
    "compare_runs",
    "dry_run",
    "features",
    "load_run",
    "measure_cost",
    "open_dataset",
    "open_run",
    "prepare",
    "train",
]
