"""Plots as Vega-Lite: one file a kind; `drawn.py` turns any of them into SVG, PNG or a live plot on the page."""
