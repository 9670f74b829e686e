"""Finished pictures and how they are judged: scores, measures, and problems that raise no error.

Knows what to say about a picture once its ascent has ended. May import `inspection`, `ascent` and everything
below.
"""
