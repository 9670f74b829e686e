"""Finished pictures and how they are judged: scores, measures, and problems that raise no error.

Knows how to judge a picture once its ascent has ended. May import `inspection`, `ascent` and everything
below.
"""
