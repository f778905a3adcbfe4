"""Video files: what they hold, and their frames as images, through OpenCV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself, which of the number of frames is often an estimate.

    Attributes:
        frame_rate: frames a second
        num_frames: in all
        width_px, height_px: of a frame as it is shown
    """

    frame_rate: float
    num_frames: int
    width_px: int
    height_px: int


def video_info(path: str) -> VideoInfo | None:
    """What a file says of itself; None if it is no video that can be opened."""
    import cv2

    capture = cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            return None
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        width_px = capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        height_px = capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    finally:
        capture.release()
    if not rate > 0 or not math.isfinite(rate) or count < 1:
        return None
    return VideoInfo(rate, int(count), int(width_px), int(height_px))


def decoded(path: str, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray | None]]:
    """Frames of a video, upright; ends where it cannot be read any further.

    A seek is not exact in every format, so frames are passed over one by one.

    Args:
        path: of the video
        numbers: of frames, from 1

    Yields:
        for each frame that is passed its number, and if that is one of ``numbers`` its pixels:
        (H, W, 3) uint8, blue first
    """
    import cv2

    if not numbers:
        return
    wanted, last = set(numbers), max(numbers)
    capture = cv2.VideoCapture(path)
    try:
        for number in range(1, last + 1):
            if not capture.grab():
                return
            is_read, pixels = capture.retrieve() if number in wanted else (False, None)
            yield number, pixels if is_read else None
    finally:
        capture.release()


def write_image(path: str, pixels: np.ndarray) -> None:
    """Writes a frame as JPEG; a file that is there is whole.

    Raises:
        OSError: if it cannot be written
    """
    import cv2

    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    partial = Path(f"{path}.part")
    partial.write_bytes(data.tobytes())
    os.replace(partial, path)
