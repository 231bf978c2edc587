"""What a grid will take, before anything is spent."""
