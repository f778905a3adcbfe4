"""Every exception this package raises on purpose.

Each message names the input, what is wrong with it and what to do about it.
"""

from __future__ import annotations


class ZeroShotError(Exception):
    """Base of every error raised on purpose by ``zs_operators``."""


class InvalidInputError(ZeroShotError, ValueError):
    """An argument cannot be used as given."""


class VocabularyError(InvalidInputError):
    """Class names, synonyms, templates or background prompts are unusable."""


class FieldError(InvalidInputError):
    """A label field cannot be written to, or read from, as asked."""


class SamplesError(InvalidInputError):
    """The collection of samples cannot be processed (media type, groups, emptiness)."""


class UnknownModelError(InvalidInputError):
    """No model or pretrained tag goes by that name."""


class DeviceError(InvalidInputError):
    """The device or the precision asked for is not available here."""


class WeightsError(ZeroShotError):
    """Weights are missing, do not fit the architecture, or fail their checksum."""


class OfflineError(WeightsError):
    """Weights would have to be downloaded and that is not possible or not allowed."""


class MissingDependencyError(ZeroShotError, ImportError):
    """A package this feature needs is not installed."""


class RunError(ZeroShotError):
    """A run ended without labelling any sample, or could not go on."""


class BusyFieldError(RunError):
    """Another run is writing to the field."""


class DeletedError(RunError):
    """Somebody deleted the dataset or the field while a run went on."""


class DatabaseError(RunError):
    """The database was away for too long; what was written is kept."""


class MediaError(ZeroShotError):
    """One image cannot be read; ``outcome`` is the name recorded for its sample."""

    outcome = "unreadable_media"


class MissingMediaError(MediaError):
    """The file does not exist."""

    outcome = "missing_media"


class UnreadableMediaError(MediaError):
    """The file exists but is empty, truncated, corrupt or not an image."""

    outcome = "unreadable_media"


class UnsupportedMediaError(MediaError):
    """The file is valid media of a kind that cannot be read as one image."""

    outcome = "unsupported_media"


class MediaTooLargeError(MediaError):
    """The image has more pixels than the limit."""

    outcome = "too_large"
