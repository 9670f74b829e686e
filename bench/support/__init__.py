"""Helpers that several benchmark commands share: timing, cases, charts, samples of every op."""
