"""The command line. Parses, calls runs/, prints; nothing else knows the console."""

from cbam3d.cli.main import main

__all__ = ["main"]
