"""Every text: numbers, tables, folders."""
