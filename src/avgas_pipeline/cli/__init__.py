"""The command line: `avgas`."""

from .app import app


__all__ = ["app"]
