"""Scenario files: their format, and playing them on a floor."""
