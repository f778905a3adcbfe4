"""What went wrong, what looks wrong without ground truth, and what a person has reviewed."""

from zs_operators.analysis.brain_scores import (
    score_hardness,
    score_mistakenness,
    score_uniqueness,
)
from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind
from zs_operators.analysis.error_views import error_view
from zs_operators.analysis.review import (
    Reviewed,
    ReviewQueue,
    mark_reviewed,
    reviewed_view,
    tag_for_review,
)
from zs_operators.analysis.review_export import export_reviewed
from zs_operators.analysis.sanity import SanityCard, sanity_check
from zs_operators.analysis.saved_views import SavedErrorViews, save_error_views

__all__ = [
    "ERROR_KINDS",
    "ErrorKind",
    "ReviewQueue",
    "Reviewed",
    "SanityCard",
    "SavedErrorViews",
    "error_view",
    "export_reviewed",
    "mark_reviewed",
    "reviewed_view",
    "sanity_check",
    "save_error_views",
    "score_hardness",
    "score_mistakenness",
    "score_uniqueness",
    "tag_for_review",
]
