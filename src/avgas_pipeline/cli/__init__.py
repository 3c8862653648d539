"""The command line: `avgas`."""

from .app import app, main


__all__ = ["app", "main"]
