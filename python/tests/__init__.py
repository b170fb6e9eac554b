"""Tests of the Python side: `python3 -m unittest discover -s python/tests -t python`."""
