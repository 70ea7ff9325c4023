"""The command line: thin; whatever it does, any user can do in SQL."""
