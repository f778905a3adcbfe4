"""Names of predictions and of ground truth, brought together and never silently."""

import pytest

from zs_operators.errors import InvalidInputError
from zs_operators.evaluation.names import match_names
from zs_operators.evaluation.report_parts import Renamed
from zs_operators.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("predicted", "truth", "reason"),
    [
        ("Car", "car", "case"),
        ("STRASSE", "straße", "case"),
        ("stop sign", "stop_sign", "spelling"),
        ("Fire-Hydrant", "fire hydrant", "spelling"),
        ("cars", "car", "plural"),
        ("bus", "Buses", "plural"),
        ("houses", "house", "plural"),
        ("cherry", "cherries", "plural"),
        ("knife", "knives", "plural"),
        ("people", "person", "plural"),
        ("firemen", "fireman", "plural"),
    ],
)
def test_spellings(predicted, truth, reason):
    match = match_names([predicted], [truth])
    assert match.of_prediction(predicted) == truth
    assert match.names.renamed == (Renamed("predictions", predicted, truth, reason),)
    assert match.names.unmatched_predictions == match.names.unmatched_ground_truth == ()


@pytest.mark.parametrize(("predicted", "truth"), [("as", "a"), ("cat", "car"), ("bras", "brass")])
def test_what_only_looks_alike_stays_apart(predicted, truth):
    assert match_names([predicted], [truth]).of_prediction(predicted) == predicted


def test_equal_names_are_left_alone():
    match = match_names(["car", "Car"], ["car", "Car"])
    assert match.predictions == match.ground_truth == {}


def test_a_plural_that_is_a_class_of_its_own_is_kept():
    # A model that knows both means two things by them
    match = match_names(["glass", "glasses"], ["glass"])
    assert match.of_prediction("glasses") == "glasses"
    assert match.names.unmatched_predictions == ("glasses",)


def test_two_candidates_are_none():
    match = match_names(["CAR"], ["Car", "car"])
    assert match.predictions == {}
    assert match.names.unmatched_predictions == ("CAR",)
    assert match.names.unmatched_ground_truth == ("Car", "car")


def test_synonyms_of_the_vocabulary():
    vocabulary = Vocabulary.parse({"car": ["car", "automobile"], "dog": None})
    match = match_names(["car"], ["Automobile", "dog"], vocabulary=vocabulary)
    assert match.of_prediction("car") == "Automobile"
    assert match.names.renamed[0].reason == "synonym"
    # The dog was never predicted, but can be
    assert match.names.unmatched_ground_truth == ()


def test_ground_truth_that_names_one_class_in_two_ways():
    vocabulary = Vocabulary.parse({"car": ["car", "automobile"]})
    match = match_names(["car"], ["automobile", "car", "Car"], vocabulary=vocabulary)
    assert match.ground_truth == {"automobile": "car", "Car": "car"}
    assert {item.reason for item in match.names.renamed} == {"synonym", "case"}


def test_children_count_as_the_parent_that_ground_truth_has():
    vocabulary = Vocabulary.parse({"animal": {"pet": {"poodle": None, "tabby": None}}})
    match = match_names(["poodle", "tabby"], ["Animal"], vocabulary=vocabulary)
    assert match.of_prediction("poodle") == match.of_prediction("tabby") == "Animal"
    assert {item.reason for item in match.names.renamed} == {"parent"}
    assert (
        match_names(["poodle"], ["pet", "animal"], vocabulary=vocabulary).of_prediction("poodle")
        == "pet"
    )


def test_ground_truth_finer_than_what_is_written():
    vocabulary = Vocabulary.parse({"car": {"sedan": None, "coupe": None}}, roll_up="parent")
    match = match_names(["car"], ["sedan", "coupe"], vocabulary=vocabulary)
    assert match.ground_truth == {"sedan": "car", "coupe": "car"}


def test_roll_up_of_both_sides():
    vocabulary = Vocabulary.parse({"car": {"sedan": None, "coupe": None}, "dog": None})
    match = match_names(["sedan", "dog"], ["coupe", "dog"], vocabulary=vocabulary, roll_up="parent")
    assert match.of_prediction("sedan") == match.of_truth("coupe") == "car"
    assert match.names.unmatched_ground_truth == ()
    with pytest.raises(InvalidInputError, match="needs parents"):
        match_names(["sedan"], ["coupe"], roll_up="parent")
    with pytest.raises(InvalidInputError, match="neither a class nor a parent"):
        match_names(["sedan"], ["coupe"], vocabulary=vocabulary, roll_up=["boat"])


def test_given_names_go_first():
    match = match_names(["vehicle", "Dogs"], ["car", "dog"], names={"vehicle": "car"})
    assert match.predictions == {"vehicle": "car", "Dogs": "dog"}
    assert [item.reason for item in match.names.renamed] == ["plural", "given"]
    # A name pinned to itself is not brought together with another
    assert match_names(["Dogs"], ["dog"], names={"Dogs": "Dogs"}).predictions == {}
    # One that is only in ground truth is renamed there
    assert match_names(["car"], ["van", "car"], names={"van": "car"}).ground_truth == {"van": "car"}


def test_exact_names():
    match = match_names(["Car"], ["car"], names="exact")
    assert match.predictions == {}
    assert match.names.unmatched_predictions == ("Car",)
    assert match.names.unmatched_ground_truth == ("car",)


@pytest.mark.parametrize("names", ["fuzzy", None, ["car"], {"car": None}, {1: "car"}])
def test_unusable_names(names):
    with pytest.raises(InvalidInputError, match="names="):
        match_names(["car"], ["car"], names=names)


def test_names_a_person_wrote_count_on_either_side():
    match = match_names(["Cars", "dog"], ["car", "dog"])
    assert match.of_any(["Cars", "DOG", "eel"]) == {"car", "dog", "eel"}
