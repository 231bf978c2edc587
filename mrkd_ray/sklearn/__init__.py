"""A cohort as a classifier of scikit-learn."""

from mrkd_ray.sklearn.cohort_classifier import EXPECTED_FAILURES, CohortClassifier

__all__ = ["EXPECTED_FAILURES", "CohortClassifier"]
