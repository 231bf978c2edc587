"""From a waveform to [bins, frames]: one function and a decorator for each."""
