"""Requests, slots and the memory of keys and values."""
