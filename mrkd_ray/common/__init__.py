"""What everything stands on: files, errors, registries, progress, timelines. No audio in it."""
