"""The mean of the members' probabilities."""

from __future__ import annotations

import numpy as np

from mrkd_ray.scores.ensemble import mean_probabilities


def test_the_mean_is_computed_in_float64_from_a_list_or_an_array() -> None:
    members = np.random.default_rng(0).dirichlet(np.ones(5), (3, 7)).astype(np.float32)
    exact = (members[0].astype(np.float64) + members[1] + members[2]) / 3
    assert (members.mean(axis=0) != exact).any()  # in float32 it would be another
    for given in (members, list(members)):
        found = mean_probabilities(given)
        assert found.dtype == np.float64
        assert np.array_equal(found, exact)
