"""From an upright RGB image to the pixels a CLIP image tower was trained on.

Resizing and cropping stay on uint8, so reader threads hand over a quarter of the bytes; scaling
and normalisation happen on the device, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError, WeightsError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.images import UprightImage

RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")
_LONG_ASPECT = 4.0  # beyond it, what resizing would make and cropping throw away dominates


@dataclass(frozen=True)
class ClipPreprocess:
    """The image transform of one checkpoint.

    Attributes:
        size_px: (height, width) of what the image tower takes
        mean, std: per RGB channel, of pixels scaled to [0, 1]
        interpolation: "bicubic" or "bilinear", both antialiased
        resize_mode: "shortest" (shortest side to size, centre crop), "longest" (longest side to
            size, pad) or "squash" (to size, whatever the aspect)
        fill_color: 0..255, of the padding
    """

    size_px: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any], image_size_px: Any) -> ClipPreprocess:
        """From open_clip's ``preprocess_cfg``; the model's own image size wins over its ``size``.

        Raises:
            WeightsError: if the config asks for something open_clip does not do either
        """
        size = image_size_px if image_size_px is not None else config["size"]
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        mean, std = (
            (value,) * 3 if isinstance(value, int | float) else tuple(value)
            for value in (config["mean"], config["std"])
        )
        # open_clip treats "random", a training augmentation, as bicubic
        interpolation = config.get("interpolation") or "bicubic"
        if interpolation == "random":
            interpolation = "bicubic"
        mode = config.get("resize_mode") or "shortest"
        if interpolation not in INTERPOLATIONS or mode not in RESIZE_MODES or len(mean) != 3:
            raise WeightsError(
                f"preprocess_cfg cannot be used: interpolation {interpolation!r} must be one of "
                f"{INTERPOLATIONS}, resize_mode {mode!r} one of {RESIZE_MODES}, mean and std "
                "three numbers"
            )
        return cls(
            (int(height), int(width)),
            tuple(map(float, mean)),
            tuple(map(float, std)),
            interpolation,
            mode,
            int(config.get("fill_color") or 0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON that identifies the transform."""
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    def pixels(self, image: UprightImage | np.ndarray) -> torch.Tensor:
        """Resize and crop one image, as open_clip's transform does it.

        Within 1 of 255 levels of Pillow's result, 2 where the image is enlarged. Rows are resized
        before columns; Pillow 13 sometimes takes the other order, which shows (by up to 15 levels)
        where an image is squeezed much more one way than the other.

        Thread-safe, and runs on the calling thread alone: torch's kernel for one uint8 image does
        not split it over intra-op threads, so readers do not crowd out the model.

        Args:
            image: an :class:`~zs_operators.images.UprightImage`, or (H, W, 3) uint8 RGB

        Returns:
            (3, height, width) uint8 RGB tensor

        Raises:
            InvalidInputError: if the image is not (H, W, 3) uint8 or is empty
        """
        import numpy as np
        import torch

        array = getattr(image, "pixels", image)
        if (
            not isinstance(array, np.ndarray)
            or array.dtype != np.uint8
            or array.ndim != 3
            or array.shape[2] != 3
            or 0 in array.shape
        ):
            found = (
                f"{array.dtype} of shape {array.shape}"
                if isinstance(array, np.ndarray)
                else type(array).__name__
            )
            raise InvalidInputError(f"expected an RGB image as (H, W, 3) uint8, got {found}")
        height, width = array.shape[:2]
        if self.resize_mode == "shortest" and max(height, width) > _LONG_ASPECT * min(
            height, width
        ):
            return self._pixels_of_long_image(array)
        if not array.flags.writeable or not array.flags.c_contiguous:
            array = np.array(array, order="C")  # torch wants to own what it may write to
        # Its stride of the batch tells torch to keep the channels last
        tensor = torch.from_numpy(array.reshape(1, height, width, 3).transpose(0, 3, 1, 2))
        return self._centre(self._resize(tensor)[0])

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) uint8 -> float32 on the same device, as ToTensor and Normalize do it."""
        import torch

        mean = torch.tensor(self.mean, device=batch.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, 3, 1, 1)
        return batch.float().div_(255).sub_(mean).div_(std)

    def _resize(self, batch: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) uint8 to the size before cropping or padding."""
        import torch.nn.functional as F

        size = list(self._resized(*batch.shape[2:]))
        if self.interpolation == "bicubic":
            # What torchvision's resize comes to, in one call instead of several: at each a thread
            # gives up Python's lock, and waits for it again while others read
            return F.interpolate(batch, size, mode="bicubic", antialias=True)
        from torchvision.transforms.v2 import functional

        return functional.resize(batch, size, functional.InterpolationMode(self.interpolation))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) before cropping or padding, rounded as open_clip rounds."""
        target_height, target_width = self.size_px
        if self.resize_mode == "squash":
            return self.size_px
        if self.resize_mode == "shortest" and target_height == target_width:
            if width <= height:
                return int(target_width * height / width), target_width
            return target_height, int(target_height * width / height)
        ratios = (height / target_height, width / target_width)
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _centre(self, tensor: torch.Tensor) -> torch.Tensor:
        """Crop, or pad with ``fill_color``, to the target size."""
        height, width = self.size_px
        missing_y = max(0, height - tensor.shape[1])
        missing_x = max(0, width - tensor.shape[2])
        if missing_x or missing_y:
            from torchvision.transforms.v2.functional import pad

            left, top = missing_x // 2, missing_y // 2
            padding = [left, top, missing_x - left, missing_y - top]
            tensor = pad(tensor, padding, fill=self.fill_color)
        top = round((tensor.shape[1] - height) / 2.0)
        left = round((tensor.shape[2] - width) / 2.0)
        return tensor[:, top : top + height, left : left + width]

    def _pixels_of_long_image(self, array: np.ndarray) -> torch.Tensor:
        """Resize only the part that the centre crop keeps, on the same sampling grid.

        A 1 x 20,000 px image would otherwise be blown up to 224 x 4,480,000 before the crop.
        """
        import numpy as np
        import torch
        from PIL import Image

        height, width = array.shape[:2]
        target_height, target_width = self.size_px
        full_height, full_width = self._resized(height, width)
        top = round((full_height - target_height) / 2.0)
        left = round((full_width - target_width) / 2.0)
        scale_x, scale_y = width / full_width, height / full_height
        resample = getattr(Image.Resampling, self.interpolation.upper())
        columns = (left * scale_x, 0, min(width, (left + target_width) * scale_x), height)
        rows = (0, top * scale_y, target_width, min(height, (top + target_height) * scale_y))
        image = Image.fromarray(array)
        image = image.resize((target_width, height), resample, box=columns)
        cropped = image.resize((target_width, target_height), resample, box=rows)
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)
