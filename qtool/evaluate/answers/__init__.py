"""Readers of what a model wrote: the number, letter, words, code or JSON that a person would take as its answer.

Each reader goes through the same stages and stops at the first that settles it: an answer that is marked as one
("the answer is", a box, ####, bold, a line of its own), then the only candidate, else nothing. Nothing is guessed:
what cannot be told is unparsable, and counted as such.
"""
