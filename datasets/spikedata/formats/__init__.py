"""Parsers, one file format per module."""
