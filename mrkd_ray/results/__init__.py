"""From finished cells to tables."""
