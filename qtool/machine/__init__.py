"""This machine: device and number type, memory, load, bandwidth."""
