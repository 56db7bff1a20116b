"""The only room that orders stages."""
