"""One experiment: its key, its tasks, its run and its files."""
