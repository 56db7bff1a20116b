"""Requests and answers as the OpenAI API shapes them."""
