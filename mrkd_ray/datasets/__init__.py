"""Labelled recordings: opening, checking, splitting, downloading."""
