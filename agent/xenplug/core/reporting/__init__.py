"""Decisions and plans in words and figures for people and programs."""
