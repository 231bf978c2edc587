"""What predictions are worth: metrics, intervals, comparisons, calibration. NumPy only."""
