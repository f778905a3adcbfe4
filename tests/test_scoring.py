import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zs_operators.errors import InvalidInputError
from zs_operators.scoring import NEUTRAL_PROMPTS, Scores, class_vectors, decide, margins, score


def unit(rows):
    rows = torch.as_tensor(rows, dtype=torch.float32)
    return rows / rows.norm(dim=1, keepdim=True)


def random_unit(count, dim=16, seed=0):
    return unit(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)))


def scores_of(logits, probabilities=None):
    logits = np.asarray(logits, dtype=np.float32)
    if probabilities is None:
        probabilities = torch.softmax(torch.tensor(logits), dim=1).numpy()
    return Scores(
        logits, np.asarray(probabilities, np.float32), logits / 100, np.ones(len(logits), bool)
    )


logits_strategy = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-50, 50, width=32))
)


class TestClassVectors:
    def test_is_normalised_mean_of_normalised_prompts(self):
        prompts = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, -3.0]])
        vectors = class_vectors(prompts, (0, 0, 1), 2)
        root = 0.5**0.5
        torch.testing.assert_close(vectors, torch.tensor([[root, root], [0.0, -1.0]]))

    def test_does_not_depend_on_prompt_order_or_on_repeating_the_template_list(self):
        prompts = random_unit(6)
        columns = (0, 0, 0, 1, 1, 1)
        vectors = class_vectors(prompts, columns, 2)
        shuffled = class_vectors(prompts[[2, 0, 1, 5, 3, 4]], columns, 2)
        doubled = class_vectors(torch.cat([prompts, prompts]), columns * 2, 2)
        torch.testing.assert_close(shuffled, vectors, atol=1e-6, rtol=0)
        torch.testing.assert_close(doubled, vectors, atol=1e-6, rtol=0)

    def test_columns_with_different_numbers_of_prompts_equal_one_at_a_time(self):
        prompts = random_unit(7)
        columns = (0, 1, 1, 1, 2, 2, 3)
        together = class_vectors(prompts, columns, 4)
        for column in range(4):
            rows = [i for i, c in enumerate(columns) if c == column]
            alone = class_vectors(prompts[rows], [0] * len(rows), 1)
            torch.testing.assert_close(together[column : column + 1], alone, atol=0, rtol=0)

    def test_averaging_scores_is_averaging_embeddings_up_to_their_norm(self):
        # oracle 4: mean of cosines == cosine with the class vector times the length of the mean
        prompts, images = random_unit(5), random_unit(3, seed=1)
        vector = class_vectors(prompts, [0] * 5, 1)
        mean_of_scores = (images @ prompts.T).mean(dim=1)
        expected = (images @ vector.T)[:, 0] * prompts.mean(dim=0).norm()
        torch.testing.assert_close(mean_of_scores, expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize(
        ("prompts", "columns", "count", "message"),
        [
            (torch.eye(2), (0,), 1, "1 columns"),
            (torch.eye(2), (0, 0), 2, r"columns \[1\] have no prompt"),
            (torch.eye(2), (0, 2), 2, "outside"),
            (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), (0, 0), 1, "cancel out"),
            (torch.tensor([[float("nan"), 0.0]]), (0,), 1, "not finite"),
        ],
    )
    def test_refuses(self, prompts, columns, count, message):
        with pytest.raises(InvalidInputError, match=message):
            class_vectors(prompts, columns, count)


class TestScore:
    def test_softmax_by_hand(self):
        result = score([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], logit_scale=2.0)
        np.testing.assert_allclose(result.cosines, [[1, 0]])
        np.testing.assert_allclose(result.logits, [[2, 0]])
        expected = np.exp(2) / (np.exp(2) + 1)
        np.testing.assert_allclose(result.probabilities, [[expected, 1 - expected]], rtol=1e-6)

    def test_sigmoid_by_hand_and_independent_of_the_other_classes(self):
        images, vectors = random_unit(4), random_unit(3, seed=1)
        full = score(images, vectors, logit_scale=117.3, logit_bias=-12.93)
        cosines = (images @ vectors.T).numpy()
        np.testing.assert_allclose(
            full.probabilities,
            1 / (1 + np.exp(12.93 - 117.3 * cosines.astype(np.float64))),
            rtol=1e-4,
        )
        fewer = score(images, vectors[:2], logit_scale=117.3, logit_bias=-12.93)
        np.testing.assert_allclose(fewer.probabilities, full.probabilities[:, :2], rtol=1e-5)

    def test_one_class_has_probability_one(self):
        result = score(random_unit(3), random_unit(1, seed=1), logit_scale=100.0)
        np.testing.assert_array_equal(result.probabilities, np.ones((3, 1)))

    def test_permuting_classes_permutes_everything(self):
        images, vectors = random_unit(4), random_unit(6, seed=1)
        order = [3, 0, 5, 1, 2, 4]
        plain = score(images, vectors, logit_scale=100.0)
        permuted = score(images, vectors[order], logit_scale=100.0)
        for name in ("logits", "probabilities", "cosines"):
            np.testing.assert_allclose(
                getattr(permuted, name), getattr(plain, name)[:, order], atol=1e-4
            )

    @pytest.mark.parametrize("multi_label", [False, True])
    def test_temperature_changes_confidence_and_not_rank_or_logits(self, multi_label):
        images, vectors = random_unit(20), random_unit(6, seed=1)
        options = {"logit_scale": 100.0, "multi_label": multi_label, "num_background": 1}
        plain = score(images, vectors, **options)
        warm = score(images, vectors, temperature=10.0, **options)
        np.testing.assert_array_equal(plain.logits, warm.logits)
        np.testing.assert_array_equal(
            decide(plain, num_background=1).order, decide(warm, num_background=1).order
        )
        assert not np.allclose(plain.probabilities, warm.probabilities)

    def test_a_background_equal_to_a_class_takes_half_of_its_probability(self):
        image, vectors = random_unit(1), random_unit(1, seed=1)
        result = score(image, torch.cat([vectors, vectors]), logit_scale=100.0, num_background=1)
        np.testing.assert_allclose(result.probabilities, [[0.5, 0.5]])

    def test_multi_label_compares_each_class_with_the_strongest_background(self):
        images = unit([[1.0, 1.0, 0.1]])
        vectors = torch.eye(3)[[0, 1, 2]]
        result = score(images, vectors, logit_scale=10.0, multi_label=True, num_background=1)
        z = 10 * images[0] @ vectors.T
        expected = torch.sigmoid(z - z[2]).numpy()
        np.testing.assert_allclose(result.probabilities[0], expected, rtol=1e-6)
        assert (result.probabilities[0, :2] > 0.99).all()  # both present, neither suppresses

    def test_multi_label_of_a_softmax_model_needs_background(self):
        with pytest.raises(InvalidInputError, match="background"):
            score(random_unit(1), random_unit(2), logit_scale=1.0, multi_label=True)
        result = score(
            random_unit(1), random_unit(2), logit_scale=1.0, logit_bias=0.0, multi_label=True
        )
        assert result.probabilities.shape == (1, 2)
        assert all(prompt.strip() for prompt in NEUTRAL_PROMPTS)

    @settings(deadline=None, max_examples=50)
    @given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10_000), classes=st.integers(1, 8))
    def test_softmax_is_a_distribution_at_any_scale(self, seed, scale, classes):
        result = score(
            random_unit(3, seed=seed), random_unit(classes, seed=seed + 1), logit_scale=scale
        )
        np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, rtol=1e-5)
        assert np.isfinite(result.logits).all()

    def test_everything_is_float32_even_from_half_precision(self):
        images = random_unit(4).half().numpy()
        result = score(images, random_unit(3, seed=1).bfloat16(), logit_scale=100.0)
        for name in ("logits", "probabilities", "cosines"):
            assert getattr(result, name).dtype == np.float32

    def test_bf16_embeddings_agree_on_the_best_class(self):
        vectors = random_unit(10, dim=512, seed=1)
        images = unit(vectors[torch.arange(500) % 10] + 0.3 * random_unit(500, dim=512, seed=2))
        full = score(images, vectors, logit_scale=100.0).logits.argmax(axis=1)
        half = score(unit(images.bfloat16().float()), vectors, logit_scale=100.0).logits.argmax(
            axis=1
        )
        assert (full == half).mean() > 0.99

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
    def test_an_unusable_embedding_is_reported_and_never_scored(self, bad):
        images = random_unit(3)
        images[1] = bad
        result = score(images, random_unit(4, seed=1), logit_scale=100.0)
        np.testing.assert_array_equal(result.finite, [True, False, True])
        for name in ("logits", "probabilities", "cosines"):
            assert np.isfinite(getattr(result, name)).all()
            assert (getattr(result, name)[1] == 0).all()
        decided = decide(result)
        assert decided.rejected_by.tolist() == [None, "non_finite", None]
        assert not decided.kept[1].any()

    def test_no_images(self):
        result = score(torch.empty(0, 16), random_unit(3), logit_scale=1.0)
        assert result.probabilities.shape == (0, 3)
        assert decide(result, top_k=2).order.shape == (0, 2)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"embeddings": 3 * random_unit(2)}, "unit length"),
            ({"embeddings": random_unit(2, dim=8)}, "expected"),
            ({"vectors": torch.full((2, 16), float("nan"))}, "NaN"),
            ({"logit_scale": float("nan")}, "logit_scale"),
            ({"logit_scale": 0.0}, "logit_scale"),
            ({"logit_bias": float("inf")}, "logit_bias"),
            ({"temperature": 0.0}, "temperature"),
            ({"temperature": float("nan")}, "temperature"),
            ({"num_background": 2}, "at least one class"),
            ({"num_background": -1}, "at least one class"),
        ],
    )
    def test_refuses(self, change, message):
        arguments = {"embeddings": random_unit(2), "vectors": random_unit(2), "logit_scale": 1.0}
        with pytest.raises(InvalidInputError, match=message):
            score(**{**arguments, **change})


class TestDecide:
    def test_best_class_by_default(self):
        decided = decide(scores_of([[1, 3, 2], [9, 3, 2]]))
        assert decided.order.tolist() == [[1], [0]]
        assert decided.kept.tolist() == [[True], [True]]
        assert decided.margin.tolist() == [[1.0], [6.0]]
        assert decided.rejected_by.tolist() == [None, None]

    def test_top_k_is_best_first_and_never_background(self):
        decided = decide(scores_of([[1, 3, 2, 2.5]]), num_background=1, top_k=10)
        assert decided.order.tolist() == [[1, 2, 0]]
        assert decided.margin.tolist() == [[0.5, -1.0, -2.0]]

    def test_saturated_probabilities_still_rank_by_logit(self):
        decided = decide(scores_of([[100, 300, 200]], [[0, 1, 0]]), top_k=3)
        assert decided.order.tolist() == [[1, 2, 0]]

    @settings(deadline=None)
    @given(logits_strategy)
    def test_thresholds_that_never_and_always_reject(self, logits):
        scores = scores_of(logits)
        assert decide(scores, min_confidence=0.0).kept.all()
        rejected = decide(scores, min_confidence=1.01)
        assert not rejected.kept.any()
        assert set(rejected.rejected_by) == {"confidence"}

    @settings(deadline=None)
    @given(logits_strategy)
    def test_margins_are_what_their_definition_says(self, logits):
        expected = [[row[c] - max(np.delete(row, c)) for c in range(len(row))] for row in logits]
        np.testing.assert_allclose(margins(logits), expected, rtol=1e-6)

    def test_margin_of_a_tie_is_zero_and_of_a_single_column_nan(self):
        assert margins(np.float32([[2, 2, 1]])).tolist() == [[0, 0, -1]]
        assert np.isnan(margins(np.float32([[2]]))).all()

    def test_each_rule_by_itself(self):
        scores = scores_of([[2.0, 1.5, 0.0]])
        best = scores.probabilities[0, 0]
        assert decide(scores, min_confidence=best).rejected_by[0] is None  # equal passes
        assert decide(scores, min_confidence=best + 0.01).rejected_by[0] == "confidence"
        assert decide(scores, min_margin=0.5).rejected_by[0] is None
        assert decide(scores, min_margin=0.51).rejected_by[0] == "margin"
        assert decide(scores, min_cosine=0.0199).rejected_by[0] is None
        assert decide(scores, min_cosine=0.021).rejected_by[0] == "cosine"

    def test_background_rejects_only_where_it_is_stronger(self):
        scores = scores_of([[2.0, 1.0, 1.5], [1.0, 0.5, 1.0], [1.0, 0.5, 1.1]])
        decided = decide(scores, num_background=1, top_k=2)
        assert decided.rejected_by.tolist() == [None, None, "background"]
        assert decided.kept.tolist() == [[True, False], [True, False], [False, False]]

    def test_the_first_rule_names_the_rejection(self):
        decided = decide(
            scores_of([[1.0, 0.5, 2.0]]),
            num_background=1,
            min_confidence=0.99,
            min_margin=9,
            min_cosine=0.9,
        )
        assert decided.rejected_by[0] == "background"

    def test_a_margin_is_asked_of_the_best_class_only(self):
        decided = decide(scores_of([[5.0, 1.0, 0.0]]), top_k=3, min_margin=2)
        assert decided.kept.tolist() == [[True, True, True]]

    def test_multi_label_judges_each_class_for_itself(self):
        scores = scores_of([[3.0, 2.0, 1.0, 1.5]], [[0.9, 0.7, 0.4, 0.5]])
        decided = decide(scores, num_background=1, multi_label=True)
        assert decided.order.tolist() == [[0, 1, 2]]
        assert decided.kept.tolist() == [[True, True, False]]
        strict = decide(scores, num_background=1, multi_label=True, min_confidence=0.8)
        assert strict.kept.tolist() == [[True, False, False]]
        none = decide(scores, num_background=1, multi_label=True, min_confidence=0.95)
        assert none.rejected_by[0] == "confidence"

    @pytest.mark.parametrize(
        "options",
        [
            {"top_k": 0},
            {"top_k": -1},
            {"top_k": True},
            {"top_k": 1.5},
            {"min_confidence": float("nan")},
            {"min_margin": 1.0, "multi_label": True},
        ],
    )
    def test_refuses(self, options):
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            decide(scores_of([[1.0, 2.0]]), **options)

    def test_refuses_a_margin_without_competitors(self):
        with pytest.raises(InvalidInputError, match="single class"):
            decide(scores_of([[1.0]]), min_margin=0.1)
