"""Short videos of drawn scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import fiftyone as fo

#: Frames per second of the videos
RATE = 8
SIZE_PX = (320, 240)


def write_video(path: Path, scenes, *, frames_each: int = RATE) -> list[str]:
    """A video that shows each scene for a second; the names of their only objects."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, SIZE_PX)
    for scene in scenes:
        frame = cv2.resize(scene.image, SIZE_PX)[:, :, ::-1]
        for _ in range(frames_each):
            writer.write(frame)
    writer.release()
    return [scene.objects[0].label for scene in scenes]


def metadata(num_scenes: int) -> fo.VideoMetadata:
    """Of a video of so many scenes; the App shows videos that have it without ffprobe."""
    width, height = SIZE_PX
    return fo.VideoMetadata(
        frame_width=width,
        frame_height=height,
        frame_rate=RATE,
        total_frame_count=num_scenes * RATE,
        duration=num_scenes,
    )
