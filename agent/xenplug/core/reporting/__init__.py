"""Decisions and plans as texts, JSON and metrics, for people and programs."""
