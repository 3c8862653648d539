"""From windows to sources: encode, track, render."""
