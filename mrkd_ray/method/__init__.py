"""The paper: Algorithm 1, its losses and averages. Knows nothing of files or of Ray."""
