"""What runs left on a dataset: list, look into, compare, repeat, delete and exchange them."""

from zs_operators.run_history.comparison import Flip, RunComparison, compare_runs
from zs_operators.run_history.deletion import DeletedRun, delete_run
from zs_operators.run_history.exchange import export_run, exported, import_run
from zs_operators.run_history.repetition import iter_rerun, rerun
from zs_operators.run_history.stored_run import StoredRun, load_run, runs

__all__ = [
    "DeletedRun",
    "Flip",
    "RunComparison",
    "StoredRun",
    "compare_runs",
    "delete_run",
    "export_run",
    "exported",
    "import_run",
    "iter_rerun",
    "load_run",
    "rerun",
    "runs",
]
