"""From stored frames to the windows that networks see."""
