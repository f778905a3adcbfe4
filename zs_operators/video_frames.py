"""Videos as views of their frames, whose images are read from the videos once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError, SamplesError
from zs_operators.progress import show_progress
from zs_operators.report import Progress
from zs_operators.video_files import decoded, video_info, write_image

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.view import DatasetView

#: Images that wait until the database hears of them.
_SAVED_AT_ONCE = 500
_SECONDS_BETWEEN_STEPS = 0.5
_NAMES_SHOWN = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampledFrames:
    """Frames of videos.

    Attributes:
        view: of the frames
        warnings: sentences on the videos that could not be read
    """

    view: SampleCollection
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """How many frames there are, and the warnings, as plain JSON."""
        return {"frames": self.view.count(), "warnings": list(self.warnings)}


def sample_frames(
    samples: SampleCollection,
    frames_per_second: float = 1,
    *,
    frames_dir: str | os.PathLike | None = None,
    progress: bool | Callable | None = None,
) -> DatasetView:
    """The frames of videos as a view of images, which are read from the videos once.

    Without FFmpeg, unlike FiftyOne's ``to_frames(sample_frames=True)``, and what was read stays if
    it is interrupted. Frames whose image (``frame.filepath``) is there are not read again. Labels
    written to the view are written to the frames of the videos.

    Args:
        samples: a dataset or view of videos or clips
        frames_per_second (1): how many frames of a second to take, chosen as ``to_frames(fps=)``
            does
        frames_dir (None): where images go, as JPEG in a folder for each video; None is
            ``<video>_frames`` beside each video
        progress (None): see :func:`zs_operators.classify`

    Returns:
        a view of frames; videos that could not be read are missing, and named in a log message

    Raises:
        InvalidInputError: if the rate is no positive number, or the samples are no videos
        SamplesError: if there is no frame to take, or no place for their images
    """
    found = show_progress(iter_sample_frames(samples, frames_per_second, frames_dir), progress)
    for warning in found.warnings:
        logger.warning(warning)
    return found.view


def iter_sample_frames(
    samples: SampleCollection,
    frames_per_second: float = 1,
    frames_dir: str | os.PathLike | None = None,
) -> Generator[Progress, None, SampledFrames]:
    """Like :func:`sample_frames`, as a generator that yields :class:`Progress`."""
    view, warnings = yield from frames_of(samples, frames_per_second, frames_dir)
    return SampledFrames(view, tuple(warnings))


def frames_of(
    samples: SampleCollection,
    frames_per_second: float | None = None,
    frames_dir: str | os.PathLike | None = None,
) -> Generator[Progress, None, tuple[SampleCollection, list[str]]]:
    """The frames of videos as a view; other collections unchanged.

    What is written to the view is written to the frames of its videos. Frames whose image is known
    (``frame.filepath``) and there are not read again.

    Args:
        samples: a dataset or view of videos or clips
        frames_per_second (None): how many frames of a second of video to take, chosen as by
            FiftyOne's ``to_frames(fps=)``; None takes the frames that have an image already
        frames_dir (None): where images go, in a folder for each video; None is ``<video>_frames``
            beside each video

    Yields:
        progress while videos are read

    Returns:
        the view, and sentences on the videos that could not be read

    Raises:
        InvalidInputError: if the rate is no positive number, or given for images
        SamplesError: if there is no frame to take, or no place for their images
    """
    check_frames(samples, frames_per_second, frames_dir)
    if getattr(samples, "media_type", None) != "video":
        return samples, []
    if not samples.limit(1).values("id"):
        raise SamplesError("There is nothing to label: the view holds no samples.")
    if frames_per_second is None:
        return _with_images(samples), []
    video_ids = _video_ids(samples)
    lost = yield from _read(samples, video_ids, frames_per_second, frames_dir)
    if set(video_ids) <= set(lost):
        raise SamplesError(
            f"No frame of these videos could be read: {_some(lost.values())}. Restore the files, "
            "or convert them to MP4 (H.264)."
        )
    ids = samples.values("id")
    gone = [one for one, video_id in zip(ids, video_ids, strict=True) if video_id in lost]
    readable = samples.exclude(gone) if gone else samples
    frames = readable.to_frames(sample_frames=False, fps=frames_per_second)
    if not lost:
        return frames, []
    return frames, [
        f"{len(lost):,} of {len(set(video_ids)):,} videos could not be read, and have no labels: "
        f"{_some(lost.values())}."
    ]


def check_frames(samples: Any, frames_per_second: Any, frames_dir: Any) -> None:
    """Refuses arguments that have no meaning.

    Raises:
        InvalidInputError: for them
    """
    if frames_per_second is None:
        if frames_dir is not None:
            raise InvalidInputError(
                f"frames_dir={os.fspath(frames_dir)!r} is where images of frames are written: say "
                "how many of a second with frames_per_second=."
            )
        return
    is_number = isinstance(frames_per_second, int | float)
    if isinstance(frames_per_second, bool) or not is_number or not frames_per_second > 0:
        raise InvalidInputError(
            f"frames_per_second={frames_per_second!r} must be a number above 0."
        )
    if getattr(samples, "media_type", None) != "video":
        raise InvalidInputError(
            f"frames_per_second={frames_per_second!r} is for videos, and these samples are none."
        )


def _with_images(samples: SampleCollection) -> SampleCollection:
    from fiftyone import ViewField as F

    if samples.has_frame_field("filepath"):
        with_images = samples.match_frames(F("filepath").exists())
        if with_images.limit(1).values("id"):
            return samples.to_frames(sample_frames=False)
    raise SamplesError(
        "These samples are videos: say how many frames of a second to label, for example "
        "frames_per_second=1, or pass a view of frames (dataset.to_frames())."
    )


def _video_ids(samples: SampleCollection) -> list[str]:
    return samples.values("sample_id" if samples._dataset._is_clips else "id")


def _read(
    samples: SampleCollection,
    video_ids: Sequence[str],
    frames_per_second: float,
    frames_dir: str | os.PathLike | None,
) -> Generator[Progress, None, dict[str, str]]:
    """Writes images of frames, and notes in the frames where they are.

    Returns:
        paths of the videos of which no frame could be read, by id
    """
    supports: dict[str, list[Any]] = {one: [] for one in video_ids}
    of_clips = samples.values("support") if samples._dataset._is_clips else [None] * len(video_ids)
    for video_id, support in zip(video_ids, of_clips, strict=True):
        supports[video_id].append(support)
    lost = {}
    for done, (video_id, parts) in enumerate(supports.items()):
        progress = Progress(done, len(supports), "reading videos", unit="videos")
        yield progress
        video = samples._root_dataset[video_id]
        numbers = _numbers(video, frames_per_second, parts)
        folder = _folder(video, frames_dir)
        if not (yield from _read_video(video, numbers, folder, progress)):
            lost[video_id] = video.filepath
    return lost


def _numbers(video: fo.Sample, frames_per_second: float, supports: Sequence[Any]) -> list[int]:
    """Of the frames to take, from 1; empty if the video cannot be opened."""
    import fiftyone as fo
    import fiftyone.utils.video as fouv

    known = video.metadata
    if known is None or not known.frame_rate or not known.total_frame_count:
        info = video_info(video.filepath)
        if info is None:
            return []
        video.metadata = known = fo.VideoMetadata(
            size_bytes=os.path.getsize(video.filepath),
            frame_width=info.width_px,
            frame_height=info.height_px,
            frame_rate=info.frame_rate,
            total_frame_count=info.num_frames,
            duration=info.num_frames / info.frame_rate,
        )
        video.save()
    numbers: set[int] = set()
    for support in supports:
        found = fouv.sample_frames_uniform(
            known.frame_rate,
            total_frame_count=known.total_frame_count,
            support=support,
            fps=frames_per_second,
        )
        numbers.update(range(1, known.total_frame_count + 1) if found is None else found)
    return sorted(numbers)


def _folder(video: fo.Sample, frames_dir: str | os.PathLike | None) -> Path:
    path = Path(video.filepath)
    if frames_dir is None:
        return path.with_name(f"{path.name}_frames")
    return Path(frames_dir).expanduser().absolute() / f"{path.stem}-{video.id}"


def _read_video(
    video: fo.Sample, numbers: Sequence[int], folder: Path, progress: Progress
) -> Generator[Progress, None, bool]:
    """Writes the images that are not there; whether any frame has one in the end."""
    paths = {number: str(folder / f"{number:06d}.jpg") for number in numbers}
    known = _known_images(video)
    there = {one for one in numbers if known.get(one) not in (None, paths[one])}
    fresh = {one for one in numbers if one not in there and _is_fresh(paths[one], video.filepath)}
    missing = [one for one in numbers if one not in there and one not in fresh]
    found: list[int] = [one for one in sorted(fresh) if known.get(one) is None]
    num_read = len(there) + len(fresh)
    shown = time.monotonic()
    try:
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
        for number, pixels in decoded(video.filepath, missing):
            if pixels is not None:
                write_image(paths[number], pixels)
                num_read += 1
                found.append(number)
            if len(found) >= _SAVED_AT_ONCE:
                _save(video, found, paths, known)
                found = []
            if time.monotonic() - shown >= _SECONDS_BETWEEN_STEPS:
                yield progress
                shown = time.monotonic()
    except OSError as error:
        raise SamplesError(
            f"Images of frames cannot be written to {folder}: {error.strerror or error}. Make "
            "room, or name another folder with frames_dir=."
        ) from error
    finally:
        _save(video, found, paths, known)
    return num_read > 0


def _known_images(video: fo.Sample) -> dict[int, str | None]:
    """Paths of images by number of the frame, of all frames that the database has."""
    dataset = video._dataset
    view = dataset.select(video.id)
    if not dataset.has_frame_field("filepath"):
        return dict.fromkeys(view.values("frames[].frame_number"))
    numbers, paths = view.values(["frames[].frame_number", "frames[].filepath"])
    return dict(zip(numbers, paths, strict=True))


def _is_fresh(path: str, video: str) -> bool:
    """Whether an image was read from the video as it is now; yes if there is no video any more."""
    try:
        read = os.stat(path).st_mtime_ns
    except OSError:
        return False
    try:
        return read >= os.stat(video).st_mtime_ns
    except OSError:
        return True


def _save(
    video: fo.Sample,
    numbers: Sequence[int],
    paths: Mapping[int, str],
    known: Mapping[int, str | None],
) -> None:
    import fiftyone as fo

    for number in numbers:
        if number in known:  # asking the sample would read all of its frames each time
            video.frames[number]["filepath"] = paths[number]
        else:
            video.frames[number] = fo.Frame(filepath=paths[number])
    if numbers:
        video.save()


def _some(paths: Any) -> str:
    paths = list(paths)
    more = f" and {len(paths) - _NAMES_SHOWN:,} more" if len(paths) > _NAMES_SHOWN else ""
    return ", ".join(paths[:_NAMES_SHOWN]) + more
