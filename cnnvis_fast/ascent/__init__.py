"""The loop: plan a target, run gradient ascent on a batch, recover where memory or numbers run out.

Knows devices, dtypes, batch sizes and steps, and nothing of folders, pages or jobs. May import `objectives`,
`parameterizations` and everything below.
"""
