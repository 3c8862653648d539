"""Losses, one job a file."""
