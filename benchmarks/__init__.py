"""Measurements behind the figures in docs/; each module is a command."""
