"""A trained model behind HTTP: uploads, answers, the page. Ray's part is `distributed.serving`."""
