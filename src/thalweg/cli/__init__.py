"""The command line."""

from thalweg.cli.app import main as main

__all__ = ["main"]
