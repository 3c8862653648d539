"""The package's version: its only place, which is there where nothing was installed, too."""

VERSION = "0.1.0.dev0"
