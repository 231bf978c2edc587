"""Files that nobody would think of, for every reader: by chance (hypothesis) and by coverage."""
