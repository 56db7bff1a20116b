"""Files other programs read, one folder or module a format."""
