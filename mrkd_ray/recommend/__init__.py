"""Which cohort to train on a data set, from short probes."""
