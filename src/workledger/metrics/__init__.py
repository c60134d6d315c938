"""Every instrument, declared once."""
