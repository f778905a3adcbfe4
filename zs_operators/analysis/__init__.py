"""What went wrong, what looks wrong without ground truth, and what a person has reviewed."""

from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind
from zs_operators.analysis.error_views import error_view
from zs_operators.analysis.saved_views import SavedErrorViews, save_error_views

__all__ = ["ERROR_KINDS", "ErrorKind", "SavedErrorViews", "error_view", "save_error_views"]
