"""Strict reading of YAML documents: policies, settings and scenarios, with every problem at its line and column."""
