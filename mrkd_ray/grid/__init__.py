"""A grid from start to table."""
