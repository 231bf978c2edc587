"""Ways in which a data set can lie on disk: each module here is one, filed under `@layout`."""
