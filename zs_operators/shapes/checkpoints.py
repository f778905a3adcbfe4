"""What training and measuring the small torch models of the shapes world share."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def save_checkpoint(model: torch.nn.Module, config: dict[str, Any], out: Path) -> None:
    """Write fp16 weights and the architecture's config."""
    from safetensors.torch import save

    out.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.is_floating_point() else value).detach().contiguous().clone()
        for name, value in model.state_dict().items()
    }
    (out / "model.safetensors").write_bytes(save(state))
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(build: Callable[[dict[str, Any]], torch.nn.Module], folder: Path):
    """The model of a folder in fp32 and eval mode; ``build`` makes it from its config."""
    import torch
    from safetensors.torch import load_file

    model = build(json.loads((folder / "config.json").read_text("utf-8")))
    state = load_file(str(folder / "model.safetensors"))
    model.load_state_dict(
        {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}
    )
    return model.eval()


def training_command(
    train: Callable[..., None],
    description: str | None,
    *,
    steps: int,
    arguments: Sequence[str] | None = None,
) -> None:
    """Reads ``--seed --out --steps --threads`` and runs ``train(seed=, steps=, out=)``."""
    import torch

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("zs_operators").setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    train(seed=options.seed, steps=options.steps, out=options.out)
