"""A process that has a run on Ray and then stands still, to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main(name: str, address: str, log: str) -> None:
    import fiftyone as fo

    import zs_operators as zs
    from tests.reliability.jobs import NAMES

    steps = zs.iter_detect(
        fo.load_dataset(name),
        NAMES,
        label_field="ours",
        model="shapes-tiny",
        proposals="shapes-tiny",
        device="cpu",
        precision="fp32",
        batch_size=4,
        workers=1,
        executor=zs.RayExecutor(num_workers=1, num_cpus=1, shard_size=8, address=address),
    )
    for progress in steps:
        if progress.done:
            Path(log).write_text(str(progress.done))
            time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
