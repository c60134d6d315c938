"""Exports made for a trainer."""
