"""Data sets from their official records, verified."""
