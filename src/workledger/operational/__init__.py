"""Current state: what is running, what failed, what was said."""
