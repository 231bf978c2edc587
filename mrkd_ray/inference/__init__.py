"""A trained model: its folder, , evaluation, export. Never imports training."""
