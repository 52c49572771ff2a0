"""Configs to copy; packaged so that the demo finds its own wherever LakeLens is installed."""
