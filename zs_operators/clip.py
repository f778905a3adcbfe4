"""CLIP: images and prompts -> unit embeddings, with the checkpoint's own logit scale and bias.

>>> model = load_clip("clip-vit-b-32")
>>> pixels = torch.stack([model.preprocess(read_image(path)) for path in paths])
>>> embeddings = model.encode_images(pixels)  # (N, D) float32, unit length
>>> vectors = model.class_vectors(Vocabulary.parse(["cat", "dog"]))  # (2, D)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators import scoring
from zs_operators.clip_loading import LoadedClip, load_parts
from zs_operators.device import BatchBudget, resolve_device, resolve_precision, torch_dtype
from zs_operators.errors import InvalidInputError
from zs_operators.fused_resnet import fuse_activations
from zs_operators.weights import DEFAULT_CLIP, WeightsPlan, plan_weights

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.images import UprightImage
    from zs_operators.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

_TEXT_BATCH_SIZE = 128
_MOST_TEXTS = 2**20
_CLASSES_A_BATCH = 10  # of open_clip.build_zero_shot_classifier
_LENGTH_STEP = 16  # tokens; see ClipModel.encode_texts


def load_clip(
    model: str | Path | ClipModel = DEFAULT_CLIP,
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    allow_download: bool = True,
) -> ClipModel:
    """Load a CLIP model.

    Args:
        model: a name of :func:`zs_operators.weights.models`, an open_clip architecture, a local
            folder, or a loaded model, which is returned as it is
        weights (None): an open_clip tag, a local file or folder, "random", or None for the
            model's own; with a local path nothing touches the network
        device ("auto"): see :func:`zs_operators.device.resolve_device`
        precision ("auto"): of the image tower's weights, see
            :func:`zs_operators.device.resolve_precision`
        allow_download (True): whether weights that are not on this machine may be downloaded

    Raises:
        UnknownModelError, WeightsError, OfflineError, DeviceError, MissingDependencyError
    """
    if isinstance(model, ClipModel):
        if weights is not None:
            raise InvalidInputError("weights cannot be given together with a loaded model")
        return model
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    plan = plan_weights("clip", str(model), weights)
    return ClipModel(
        load_parts(plan, allow_download=allow_download), device=device, precision=precision
    )


class ClipModel:
    """A CLIP model on its device. The image tower's weights are in ``precision``, the text
    tower's in float32.

    Attributes:
        name: as asked for
        architecture: open_clip's name
        plan: the :class:`~zs_operators.weights.WeightsPlan`, with the file's sha256
        device, precision: resolved, such as "cpu" and "bf16"
        dim: D, length of an embedding
        context_length: tokens the text tower reads
        image_size_px: the longer side of what the image tower takes
        reduce_to_px: what to pass to :func:`~zs_operators.images.read_image`
        logit_scale: the checkpoint's, already exponentiated
        logit_bias: the checkpoint's, None where it has none
        is_sigmoid: whether scores are independent sigmoids (SigLIP) instead of a softmax
        preprocessing: dict of plain JSON that identifies the image transform
        module, tokenizer: open_clip's own objects
    """

    def __init__(self, parts: LoadedClip, *, device: str = "cpu", precision: str = "fp32") -> None:
        import torch

        self.plan: WeightsPlan = parts.plan
        self.name = parts.plan.model
        self.architecture = parts.plan.architecture
        self.device = device
        self.precision = precision
        self.module = parts.module.to(device)
        self.tokenizer = parts.tokenizer
        if precision != "fp32":
            _fold_batch_norms(self.module.visual)
            fuse_activations(self.module.visual)
        self.module.visual.to(torch_dtype(precision))
        self._dtype = torch_dtype(precision)
        self._channels_last = _prefers_channels_last(self.module.visual)
        if self._channels_last:
            self.module.visual.to(memory_format=torch.channels_last)

        bias = getattr(self.module, "logit_bias", None)
        self.logit_scale = float(self.module.logit_scale.detach().float().exp())
        self.logit_bias = None if bias is None else float(bias.detach())
        self.is_sigmoid = bias is not None
        self.context_length = int(parts.tokenizer.context_length)
        self._preprocess = parts.preprocess
        self.preprocessing = parts.preprocess.to_dict()
        self.image_size_px = max(parts.preprocess.size_px)
        self.reduce_to_px = self.image_size_px
        self._causal_text = _causal_text_tower(self.module)
        self.dim = int(self.encode_texts([""]).shape[1])

    def describe(self) -> dict[str, Any]:
        """Plain JSON that says which model made an embedding, and how."""
        import open_clip
        import torch

        return {
            "model": self.name,
            "architecture": self.architecture,
            "weights": self.plan.to_dict(),
            "device": self.device,
            "precision": self.precision,
            "text_precision": "fp32",
            "channels_last": self._channels_last,
            "dim": self.dim,
            "context_length": self.context_length,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "scores": "sigmoid" if self.is_sigmoid else "softmax",
            "preprocessing": self.preprocessing,
            "versions": {"open_clip": open_clip.__version__, "torch": str(torch.__version__)},
        }

    # ---- images ----

    def preprocess(self, image: UprightImage | np.ndarray) -> torch.Tensor:
        """Resize and crop one image as the checkpoint was trained; safe to call in threads.

        Args:
            image: an :class:`~zs_operators.images.UprightImage`, or (H, W, 3) uint8 RGB

        Returns:
            (3, S, S) uint8 tensor on the CPU; see :meth:`.ClipPreprocess.pixels`

        Raises:
            InvalidInputError: if the image is not (H, W, 3) uint8 or is empty
        """
        return self._preprocess.pixels(image)

    def encode_images(self, batch: torch.Tensor) -> torch.Tensor:
        """Embed a batch of preprocessed images.

        Args:
            batch: (N, 3, S, S) uint8; N may be 0

        Returns:
            (N, D) float32 on the CPU, rows of unit length

        Raises:
            InvalidInputError: if the batch has another shape or dtype
        """
        import torch
        import torch.nn.functional as F

        expected = (3, *self._preprocess.size_px)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected or batch.dtype != torch.uint8:
            raise InvalidInputError(
                f"expected a batch of shape (N, {', '.join(map(str, expected))}) uint8, got "
                f"{tuple(batch.shape)} {batch.dtype}; preprocess() makes its items"
            )
        if len(batch) == 0:
            return torch.empty(0, self.dim)
        # no_grad, not inference_mode: the result may be trained on, and it is as fast
        with torch.no_grad():
            images = self._preprocess.normalize(batch.to(self.device)).to(self._dtype)
            images = images.contiguous(
                memory_format=torch.channels_last
                if self._channels_last
                else torch.contiguous_format
            )
            return F.normalize(self.module.encode_image(images).float(), dim=-1).cpu()

    # ---- text ----

    def encode_texts(
        self,
        texts: Sequence[str],
        batch_size: int = _TEXT_BATCH_SIZE,
        *,
        slice_padding: bool = True,
        budget: BatchBudget | None = None,
    ) -> torch.Tensor:
        """Embed prompts.

        Under a causal mask what follows the end-of-text token cannot change its state, so tokens,
        positions and mask are cut after the last end-of-text of the batch: 5 to 7 times cheaper for
        short prompts. Lengths are rounded up to a multiple of 16, the width of the widest vector
        units: then the sums of attention are taken in the same order as for whole contexts, and on
        the CPUs tried the result is equal bit for bit. Towers without a causal mask (SigLIP) are
        never cut.

        Args:
            texts: P prompts; those longer than the context are cut, see :meth:`too_long`
            batch_size (128): prompts a forward pass
            slice_padding (True): False encodes whole contexts
            budget (None): that of earlier calls, which knows how many fit

        Returns:
            (P, D) float32 on the CPU, rows of unit length
        """
        import torch

        if len(texts) == 0:
            return torch.empty(0, self.dim)
        tokens = self.tokenizer(list(texts))
        budget = budget or self.text_budget()

        def encode(chunk: torch.Tensor) -> torch.Tensor:
            if slice_padding and self._causal_text is not None:
                return self._causal_text(chunk.to(self.device)).float().cpu()
            return self.module.encode_text(chunk.to(self.device), normalize=True).float().cpu()

        with torch.no_grad():
            chunks = [budget.run(encode, chunk) for chunk in tokens.split(batch_size)]
        return torch.cat([encoded for parts in chunks for _, _, encoded in parts])

    def text_budget(self) -> BatchBudget:
        """How many prompts may be encoded together: as many as are asked for, while they fit."""
        return BatchBudget(_MOST_TEXTS, what="prompts", device=self.device)

    def too_long(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Those prompts that do not fit into ``context_length`` tokens and will be cut."""
        return tuple(text for text in texts if self._count_tokens(text) > self.context_length)

    def _count_tokens(self, text: str) -> int:
        if hasattr(self.tokenizer, "encode"):
            return len(self.tokenizer.encode(text)) + 2  # start and end of text
        return len(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text)).input_ids)

    def class_vectors(
        self, vocabulary: Vocabulary, *, exact: bool = False, budget: BatchBudget | None = None
    ) -> torch.Tensor:
        """The unit vectors of a vocabulary: of classes, then of background prompts.

        One a column, unless ``vocabulary.vector_columns()`` says which column each belongs to.

        The classes' rows equal ``open_clip.build_zero_shot_classifier`` bit for bit where each
        class has one name (that function knows no synonyms): prompts go through in the same
        batches of 10 classes. With padding cut off that was so on the CPUs tried; ``exact``
        encodes whole contexts, which makes it so by construction.

        Args:
            vocabulary: see :class:`~zs_operators.vocabulary.Vocabulary`
            exact (False): do not cut padding off
            budget (None): as for :meth:`encode_texts`

        Returns:
            (K, D) float32 on the CPU
        """
        import torch

        texts = [prompt.text for prompt in vocabulary.prompts()]
        vectors = vocabulary.prompt_vectors()
        num_class_prompts = len(texts) - len(vocabulary.background)
        batch_size = _CLASSES_A_BATCH * max(1, len(vocabulary.templates))
        embeddings = torch.cat(
            [
                self.encode_texts(part, batch_size, slice_padding=not exact, budget=budget)
                for part in (texts[:num_class_prompts], texts[num_class_prompts:])
            ]
        )
        return scoring.class_vectors(
            embeddings, vectors, vectors[-1] + 1, vocabulary.prompt_weights()
        )


class _CausalText:
    """open_clip's causal text tower on tokens cut after the last end-of-text."""

    def __init__(self, tower: Any, pool_type: str, eos_id: int | None) -> None:
        self._tower = tower
        self._pool_type = pool_type
        self._eos_id = eos_id

    def _ends(self, tokens: torch.Tensor) -> torch.Tensor:
        """Index of each row's end-of-text token, as open_clip's pooling finds it."""
        if self._pool_type == "eos":
            return (tokens == self._eos_id).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """(P, L) tokens -> (P, D) unit rows: CLIP.encode_text without the padding."""
        import torch
        import torch.nn.functional as F

        tower, ends = self._tower, self._ends(tokens)
        length = min(-(-(int(ends.max()) + 1) // _LENGTH_STEP) * _LENGTH_STEP, tokens.shape[1])
        x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        x = tower.ln_final(x)
        x = x[torch.arange(len(x), device=x.device), ends]
        projection = tower.text_projection
        if isinstance(projection, torch.nn.Module):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return F.normalize(x, dim=-1)


def _causal_text_tower(module: Any) -> _CausalText | None:
    """The text tower if its padding can be cut off, else None."""
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    if type(module) is CLIP:
        tower, pool_type, eos_id = module, module.text_pool_type, module.text_eos_id
    elif type(module) is CustomTextCLIP and type(module.text) is TextTransformer:
        tower = module.text
        pool_type, eos_id = tower.pool_type, tower.eos_id
        if tower.cls_emb is not None or tower.output_tokens:
            return None
    else:
        return None
    if tower.attn_mask is None or pool_type not in ("argmax", "eos"):
        return None
    return _CausalText(tower, pool_type, eos_id)


def _fold_batch_norms(visual: Any) -> None:
    """Merges the batch norms of a ModifiedResNet into its convolutions, in float32.

    Fewer passes over memory, and one rounding less an activation in half precision; fp32 towers
    keep theirs, so that they equal open_clip's to the last bit.
    """
    import torch
    from open_clip.modified_resnet import ModifiedResNet
    from torch.nn.utils import fuse_conv_bn_eval

    if not isinstance(visual, ModifiedResNet):
        return
    for block in [*visual.modules()]:
        names = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")]
        for conv_name, norm_name in names:
            conv, norm = getattr(block, conv_name, None), getattr(block, norm_name, None)
            if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                setattr(block, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(block, norm_name, torch.nn.Identity())


def _prefers_channels_last(visual: Any) -> bool:
    """Convolutional towers run faster with channels last; transformers do not care."""
    from open_clip.modified_resnet import ModifiedResNet

    if isinstance(visual, ModifiedResNet):
        return True
    trunk = type(getattr(visual, "trunk", None)).__name__.lower()
    return any(name in trunk for name in ("convnext", "resnet", "fastvit", "mobile"))
