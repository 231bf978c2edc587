"""Architectures by name, and where their weights come from."""
