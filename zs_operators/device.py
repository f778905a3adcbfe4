"""Device, precision, batch size, and backing off when memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.errors import DeviceError, InvalidInputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "fp16")
# Throughput of CLIP towers is flat from 8 to 32 images with 2 threads; with 16 threads, 64 images
# at once were 1.5 times as fast as 16, and 32 were 1.2 times as fast.
_CPU_BATCH_SIZES, _CPU_IMAGES_A_THREAD = (16, 64), 4
_GIB = 2**30
_MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    # convolutions: cuDNN had no algorithm whose workspace was left room for
    "unable to find an engine to execute this computation",
)


def resolve_device(device: str | torch.device = "auto") -> str:
    """The device to run on, checked to exist here.

    Args:
        device ("auto"): "auto" (CUDA, else Apple's MPS, else CPU), "cpu", "cuda", "cuda:1",
            "mps" or a :class:`torch.device`

    Raises:
        DeviceError: if there is no such device; the message names the ones there are
    """
    import torch

    name = str(device).strip().lower()
    available = available_devices()
    if name == "auto":
        return next((d for d in ("cuda:0", "mps") if d in available), "cpu")
    try:
        wanted = torch.device(name)
    except (RuntimeError, ValueError, TypeError) as error:
        raise DeviceError(
            f"device {device!r} is not a device name; available here: {', '.join(available)}"
        ) from error
    if wanted.type == "cuda" and wanted.index is None:
        full_name = "cuda:0"
    else:
        full_name = wanted.type if wanted.type in ("cpu", "mps") else str(wanted)
    if full_name not in available:
        raise DeviceError(
            f"device {device!r} is not available here (available: {', '.join(available)}); "
            "use device='auto' to take the best one there is"
        )
    return name


def available_devices() -> tuple[str, ...]:
    """Names of the devices that can be used here, "cpu" first."""
    import torch

    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return tuple(names)


def resolve_precision(precision: str = "auto", device: str = "cpu") -> str:
    """The dtype of the image tower's weights: "fp32", "bf16" or "fp16".

    "auto" is bf16 where the device multiplies bf16 matrices in hardware (CUDA sm_80 and later,
    CPUs with AMX-BF16 or AVX512-BF16), fp16 on older CUDA, and fp32 everywhere else. Text towers
    and scores are in fp32 whatever is chosen here.

    Raises:
        InvalidInputError: if the name is unknown
        DeviceError: if the device cannot compute in that precision
    """
    import torch

    if precision not in ("auto", *PRECISIONS):
        raise InvalidInputError(
            f"precision must be one of 'auto', 'fp32', 'bf16', 'fp16', not {precision!r}"
        )
    kind = torch.device(device).type
    if kind == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        if precision == "auto":
            return "bf16" if has_bf16 else "fp16"
    else:
        has_bf16 = kind == "cpu" and cpu_has_bf16_units()
        if precision == "auto":
            return "bf16" if has_bf16 else "fp32"
        if precision == "fp16" and kind == "cpu":
            raise DeviceError("precision 'fp16' needs a GPU; on a CPU use 'auto', 'bf16' or 'fp32'")
    if precision == "bf16" and not has_bf16:
        logger.warning("%s has no bf16 matrix units: bf16 will be slower than fp32", device)
    return precision


@lru_cache(maxsize=1)
def cpu_has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX-BF16 or AVX512-BF16).

    AVX512-BF16 alone is enough: on an AMD Zen 5 core ViT-B-32 ran 3.5-4.9 times as many images
    a second with bf16 weights as with fp32 ones.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    try:
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    except (AttributeError, RuntimeError):  # torch before 2.11
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
        return "amx_bf16" in flags or "avx512_bf16" in flags


def torch_dtype(precision: str) -> torch.dtype:
    """The :class:`torch.dtype` of a resolved precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def default_batch_size(device: str, precision: str = "fp32") -> int:
    """Images a batch for ``batch_size="auto"``; :class:`BatchBudget` lowers it if need be."""
    import torch

    kind = torch.device(device).type
    if kind != "cuda":
        least, most = _CPU_BATCH_SIZES
        wanted = _CPU_IMAGES_A_THREAD * torch.get_num_threads() if kind == "cpu" else least
        return min(max(wanted, least), most)
    memory_gib = torch.cuda.get_device_properties(device).total_memory / _GIB
    batch_size = 256 if memory_gib >= 30 else 128 if memory_gib >= 14 else 64
    return batch_size // 2 if precision == "fp32" else batch_size


def resolve_batch_size(
    batch_size: int | str = "auto", device: str = "cpu", precision: str = "fp32"
) -> int:
    """``batch_size`` as a checked number of images.

    Raises:
        InvalidInputError: unless it is "auto" or a whole number of at least 1
    """
    if isinstance(batch_size, str) and batch_size == "auto":
        return default_batch_size(device, precision)
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__"):
        raise InvalidInputError(
            f"batch_size must be 'auto' or a whole number of at least 1, not {batch_size!r}"
        )
    size = int(batch_size)
    if size < 1:
        raise InvalidInputError(f"batch_size must be at least 1, not {size}; or use 'auto'")
    return size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that device or host memory ran out."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _MEMORY_PHRASES)


def release_memory(device: str = "cpu") -> None:
    """Give cached blocks back to the device."""
    import torch

    gc.collect()
    kind = torch.device(device).type
    if kind == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif kind == "mps" and torch.backends.mps.is_available():
        torch.mps.empty_cache()


class BatchBudget:
    """The number of items a call can take; halves when memory runs out, grows back with care.

    Args:
        size: items a call at the start, and the most it will ever be
        what ("images"): the items, for people
        device ("cpu"): whose cache is released after memory ran out
        grow_after (16): full-size successes in a row before the size is doubled again; this
            doubles each time growing back fails
    """

    def __init__(
        self, size: int, *, what: str = "images", device: str = "cpu", grow_after: int = 16
    ) -> None:
        self.start = resolve_batch_size(size)
        self.size = self.start
        self.what = what
        self.out_of_memory_count = 0
        self._device = device
        self._grow_after = grow_after
        self._successes = 0
        self._first_tried = 0

    @property
    def warning(self) -> str | None:
        """What a report says of it; None if memory never ran out."""
        count = self.out_of_memory_count
        if not count:
            return None
        times = "once" if count == 1 else f"{count:,} times"
        if self.size >= self._first_tried:
            return f"Memory ran out {times}; later {self.size:,} {self.what} at once fitted again."
        return (
            f"Memory ran out {times}; went on with {self.size:,} instead of "
            f"{self._first_tried:,} {self.what} at once."
        )

    def run(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any] | torch.Tensor,
        *,
        failed: dict[int, BaseException] | None = None,
    ) -> list[tuple[int, int, Any]]:
        """Call ``fn`` on consecutive slices of ``items``, none longer than ``size``.

        Args:
            fn: takes a slice of ``items``; called again on smaller slices after it ran out of
                memory, so it must have no lasting effect before it returns
            items: anything that can be sliced and has a length
            failed (None): where to put the error of an item that does not fit even alone, by its
                index; without it such an error is raised

        Returns:
            ``(start, stop, result)`` for each successful call, in order
        """
        return list(self.each(fn, items, failed=failed))

    def each(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any] | torch.Tensor,
        *,
        failed: dict[int, BaseException] | None = None,
    ) -> Iterator[tuple[int, int, Any]]:
        """The same one after the other, for results that would not all fit beside the model."""
        start = 0
        while start < len(items):
            stop = min(start + self.size, len(items))
            error = result = None
            try:
                result = fn(items[start:stop])
            except Exception as raised:
                if not is_out_of_memory(raised):
                    raise
                # without its traceback, whose frames hold the tensors that must go
                error = raised.with_traceback(None)
            if error is None:
                self.succeeded(stop - start)
                yield start, stop, result
                start = stop
                continue
            release_memory(self._device)
            if stop - start > 1:
                self.shrink(stop - start)
            elif failed is None:
                raise error
            else:
                failed[start] = error
                start = stop

    def shrink(self, tried: int) -> None:
        """Halves the size after ``tried`` items at once were too many."""
        if self.out_of_memory_count:
            self._grow_after *= 2
        self.out_of_memory_count += 1
        self._first_tried = self._first_tried or tried
        self.size = max(1, tried // 2)
        self._successes = 0
        logger.warning(
            "out of memory with %d %s at once; going on with %d", tried, self.what, self.size
        )

    def succeeded(self, count: int) -> None:
        """Doubles the size after enough full-size successes."""
        if self.size == self.start or count < self.size:
            return
        self._successes += 1
        if self._successes >= self._grow_after:
            self.size = min(self.start, self.size * 2)
            self._successes = 0
