"""What it costs that nobody's changes are lost: guarded, journaled writes against plain ones.

    python benchmarks/bench_writes.py [--samples 20480] [--rounds 3] [--image-ms 7]

Small labels in chunks of 512 into a private database, into fields that are empty and over labels of
an earlier run. Sides take turns: FiftyOne's ``set_values`` with ``Classification`` objects; plain
writes of the same labels as documents; and what a run does, which is documents, a look at what the
samples hold, the lease renewed, and waiting for the server's journal. ``--image-ms`` is how long a
model takes an image, to say what share of a run it all is: see bench_classify.py. Prints markdown
for docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from replay import Timed, timed
from worlds import private_database

CHUNK = 512
SET_VALUES, PLAIN, OURS = "set_values", "plain documents", "a run's writes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-ms", type=float, default=7.0, help="of a model, for the share")
    options = parser.parse_args()
    with private_database():
        dataset = empty_dataset(options.samples)
        taken: dict[tuple[str, str], list[Timed]] = {}
        for number in range(options.rounds + 1):
            for side in SIDES:
                field = f"{side.__name__}_{number}"
                for state, run in (("empty", "first"), ("over labels", "second")):
                    seconds = side(dataset, field, run)
                    if number:  # the first round warms up
                        taken.setdefault((SIDES[side], state), []).append(seconds)
        report(taken, options)
        steps(dataset)


def report(taken: dict[tuple[str, str], list[Timed]], options) -> None:
    print(f"\n{options.samples:,} samples, microseconds a sample (median)\n")
    print("| | wall | processor of this process |\n|---|---|---|")
    for (side, state), seconds in taken.items():
        wall, cpu = (
            1e6 * statistics.median(getattr(one, kind) for one in seconds) / options.samples
            for kind in ("wall", "cpu")
        )
        print(f"| {side}, {state} | {wall:.0f} | {cpu:.0f} |")
    for state in ("empty", "over labels"):
        for other in (SET_VALUES, PLAIN):
            pairs = zip(taken[OURS, state], taken[other, state], strict=True)
            extra = statistics.median(1e3 * (a.wall - b.wall) / options.samples for a, b in pairs)
            print(
                f"\n{state}: {extra:+.3f} ms a sample against {other}, "
                f"{extra / options.image_ms:+.1%} of an image of {options.image_ms:g} ms"
            )


def empty_dataset(count: int):
    import fiftyone as fo

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=f"/{i}.png") for i in range(count)], progress=False)
    return dataset


def set_values(dataset, field: str, run: str) -> Timed:
    """As FiftyOne's own code writes labels."""
    import fiftyone as fo

    from zs_operators import fields

    fields.declare(dataset, field, "Classification", "benchmark")
    ids = dataset.values("id")

    def write() -> None:
        for start in range(0, len(ids), CHUNK):
            found = {
                one: fo.Classification(label="a", confidence=0.5, cosine=0.2, margin=0.1, run=run)
                for one in ids[start : start + CHUNK]
            }
            dataset.set_values(field, found, key_field="id", validate=False)

    return timed(write)[1]


def plain(dataset, field: str, run: str) -> Timed:
    """Documents, and no care of others or of a server that is killed."""
    from zs_operators import fields
    from zs_operators.guarded_writes import write_values

    fields.declare(dataset, field, "Classification", "benchmark")

    def write() -> None:
        for found in chunks(dataset, run):
            write_values(dataset, field, found)

    return timed(write)[1]


def guarded(dataset, field: str, run: str) -> Timed:
    """As a run writes them."""
    from zs_operators.field_access import FieldAccess
    from zs_operators.targets import FieldTarget

    target = FieldTarget(dataset, field, "Classification")
    ids = dataset.values("id")
    with FieldAccess(dataset, "classify", target, overwrite=True, kept=lambda: "") as access:
        access.declare("benchmark")

        def write() -> None:
            target.watch(ids, target.marks(ids))
            for found in chunks(dataset, run):
                left = access.write(lambda found=found: target.prepare(found), {})
                if left.edited or left.deleted:
                    raise RuntimeError(f"not written: {left}")

        return timed(write)[1]


def chunks(dataset, run: str):
    """Documents by sample id."""
    from zs_operators.classifier import ClassPrediction, ClassScore
    from zs_operators.label_documents import classification

    prediction = ClassPrediction(ClassScore("a", 0.5, 0.2, 0.1), (), None, None)
    ids = dataset.values("id")
    for start in range(0, len(ids), CHUNK):
        yield {one: classification(prediction, run=run) for one in ids[start : start + CHUNK]}


SIDES: dict[Callable, str] = {set_values: SET_VALUES, plain: PLAIN, guarded: OURS}


def steps(dataset) -> None:
    """What one chunk pays however small it is."""
    from zs_operators.field_access import FieldAccess
    from zs_operators.targets import FieldTarget

    target = FieldTarget(dataset, "guarded_0", "Classification")
    with FieldAccess(dataset, "classify", target, overwrite=True, kept=lambda: "") as access:
        parts = {
            "is the field still ours": access._check,
            "renewed in the journal": lambda: access._renew(journaled=True),
            "samples loaded": lambda: dataset.values("id"),
        }
        print("\n| once a chunk | ms (median of 50) |\n|---|---|")
        for name, step in parts.items():
            taken = []
            for _ in range(50):
                begun = time.perf_counter()
                step()
                taken.append(1e3 * (time.perf_counter() - begun))
            print(f"| {name} | {statistics.median(taken):.2f} |")


if __name__ == "__main__":
    main()
