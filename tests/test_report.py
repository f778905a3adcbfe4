"""The report a person sees, and the JSON a script gets."""

import json

from zs_operators.report import Progress, RunReport

REPORT = RunReport(
    run_key="zs_classify_pets",
    task="classify",
    label_field="pets",
    error_field="pets_error",
    counts={"labeled": 1200, "rejected": 3, "missing_media": 2},
    labels={f"class {i}": i for i in range(12)},
    seconds={"total": 61.25},
    images_per_second=19.6,
    resumed=7,
    cancelled=True,
    warnings=("one prompt is cut off",),
)


def test_the_table_says_everything_a_person_needs():
    text = str(REPORT)

    for part in (
        "classify -> pets (zs_classify_pets)",
        "1,200",
        "already done",
        "61.2",
        "19.6",
        "2 more labels",
        "run again with the same settings",
        "why 2 failed: field 'pets_error'",
        "warning: one prompt is cut off",
    ):
        assert part in text
    # Most frequent labels first
    assert text.index("class 11") < text.index("class 10") < text.index("class 3")


def test_failures_are_what_could_not_be_processed():
    assert REPORT.num_failed == 2


def test_json_is_plain():
    assert json.loads(REPORT.to_json())["counts"] == REPORT.counts
    assert RunReport(**json.loads(REPORT.to_json())).to_dict() == REPORT.to_dict()


def test_time_left_is_unknown_before_the_first_chunk():
    assert Progress(0, 10, "starting").seconds_left is None
    assert Progress(4, 10, "labelling", images_per_second=2.0).seconds_left == 3.0
