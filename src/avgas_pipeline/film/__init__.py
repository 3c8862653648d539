"""Soundscapes as films: a picture for as long as the same sources are heard, with their sound and captions."""
