"""A vocabulary as lines and back, whatever its names are and whatever lines cannot say."""

import pytest

from zs_operators.typed_words import as_lines, says_more, with_lines
from zs_operators.vocabulary import Vocabulary

PLAIN = {
    "car": ["car", "sedan"],
    "ratio 4:3": ["a, b", 'say "cheese"'],
    'the "best", or so': None,
    "# seven": None,
    "bus": ["coach"],
}
RICH = Vocabulary.parse(
    {
        "vehicle": {
            "car": {"names": ["car", "sedan"], "min_confidence": 0.4},
            "bus": {"names": [], "descriptions": ["a long thing with many windows"]},
        },
        "animal": {"cat": None},
    },
    thresholds={"vehicle": {"min_cosine": 0.1}, "animal": 0.3},
)


def test_names_are_lines_and_come_back():
    vocabulary = Vocabulary.parse(PLAIN)
    lines = as_lines(vocabulary)
    assert lines.splitlines()[0] == "car: car, sedan"
    assert lines.splitlines()[-1] == "bus: coach"
    assert Vocabulary.parse(with_lines(lines)) == vocabulary
    assert not says_more(vocabulary)


def test_what_lines_cannot_say_is_kept():
    assert says_more(RICH)
    assert as_lines(RICH).splitlines() == ["car: car, sedan", "bus", "cat"]
    assert Vocabulary.parse(with_lines(as_lines(RICH), RICH)) == RICH


def test_names_may_change_and_classes_may_go():
    changed = Vocabulary.parse(with_lines("car: saloon\nbus: coach\ntram", RICH))
    assert changed.synonyms == {"car": ("saloon",), "bus": ("coach",), "tram": ("tram",)}
    assert changed.descriptions == RICH.descriptions
    assert changed.parents == {"car": "vehicle", "bus": "vehicle"}
    assert changed.limits("min_confidence") == [0.4, float("-inf"), float("-inf")]
    assert changed.limits("min_cosine") == [0.1, 0.1, float("-inf")]


@pytest.mark.parametrize("text", ["", "# nothing"])
def test_no_lines_are_no_classes(text):
    assert with_lines(text) == []
    assert with_lines(text, RICH)["classes"] == []
