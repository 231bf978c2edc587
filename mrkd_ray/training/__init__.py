"""A branch and what it needs: minibatches, augmentation, checkpoints, ."""
