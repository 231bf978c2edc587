"""The paper's tables in its layout, reported beside measured."""
