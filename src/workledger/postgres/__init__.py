"""Connections, migrations, driver errors and the embedded server."""
