"""Storage: atomic file writes, resumable job folders, locks, and reading an atlas back.

Knows the layout of an atlas on disk, but not how pictures are made. May import `networks` and everything
below it.
"""
