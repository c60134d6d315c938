"""The real-time bus."""
