"""Sound in: loading, windows, spectrograms."""
