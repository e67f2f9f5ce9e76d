"""rho: hand-worked ranks, scipy's Spearman coefficient, and what is undefined."""

import math

import numpy as np
import pytest
from evaluated import ground_truth, predictions, result
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rankdet.evaluation.correlation import correlation_metrics, rank_correlation


def test_by_hand():
    """Ranks 1 2 3 4 and 2 1 4 3, centred -1.5 -.5 .5 1.5 and -.5 -1.5 1.5 .5: four products of .75 sum to 3.

    Both squared norms are 5, so rho is 3 / 5; how far the values lie apart does not matter.
    """
    assert rank_correlation(np.array([0.1, 0.2, 0.3, 0.99]), np.array([0.6, 0.5, 0.95, 0.7])) == pytest.approx(0.6)


def test_equal_values_share_their_ranks():
    """Ranks 1.5 1.5 3 and 1 2 3: centred -.5 -.5 1 and -1 0 1; 1.5 / (sqrt 1.5 sqrt 2)."""
    found = rank_correlation(np.array([0.2, 0.2, 0.9]), np.array([0.5, 0.6, 0.7]))
    assert found == pytest.approx(1.5 / math.sqrt(3), abs=1e-12)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30).filter(
        lambda pairs: all(len({pair[side] for pair in pairs}) > 1 for side in (0, 1))
    )
)
def test_equals_scipys_spearman_with_ties(pairs):
    first, second = np.array(pairs, float).T
    expected = spearmanr(first, second).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)


def test_undefined_without_two_different_values():
    assert math.isnan(rank_correlation(np.zeros(0), np.zeros(0)))
    assert math.isnan(rank_correlation(np.array([0.5]), np.array([0.5])))
    assert math.isnan(rank_correlation(np.array([0.5, 0.5]), np.array([0.5, 0.6])))


def test_over_right_detections_of_each_class():
    """Class a: IoU .9 .7 .8 by falling score; ranks 3 1 2 against 3 2 1, centred product 1, norms 2: rho 1/2.

    A wrong detection above them all, and a duplicate, do not take part. Class b: the better score has the worse box,
    rho -1; class c has one match, d none: left out of the mean, which is -1/4.
    """
    objects = [(1, 1, [60 * place, 0, 10, 10]) for place in range(3)]
    objects += [(1, 2, [60 * place, 0, 10, 10]) for place in range(2)] + [(1, 3, [0, 0, 10, 10])]
    results = [
        result([0, 0, 10, 9], 0.8),
        result([0, 0, 10, 9.5], 0.75),
        result([60, 0, 10, 7], 0.7),
        result([120, 0, 10, 8], 0.6),
        result([0, 100, 10, 9], 0.9),
        result([0, 0, 10, 6], 0.5, category=2),
        result([60, 0, 10, 9], 0.4, category=2),
        result([0, 0, 10, 6], 0.5, category=3),
    ]
    metrics = correlation_metrics(ground_truth(objects, categories="abcd"), results)
    assert metrics["rho/a"] == pytest.approx(0.5)
    assert metrics["rho/b"] == pytest.approx(-1)
    assert math.isnan(metrics["rho/c"])
    assert math.isnan(metrics["rho/d"])
    assert metrics["rho"] == pytest.approx(-0.25)


def test_a_detectors_predictions_and_none():
    truth, results = predictions()
    metrics = correlation_metrics(truth, results)
    assert 0 < metrics["rho"] < 1
    assert all(math.isnan(value) for value in correlation_metrics(truth, []).values())
