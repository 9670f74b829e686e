"""Whole files and resumable folders: tiles, tables, locks, and reading an atlas back.

Knows the layout of an atlas on disk, and nothing of how pictures are made. May import `images` and everything
below.
"""
