"""The loop: plans a target, runs gradient ascent on a batch, recovers if memory or numbers run out.

Knows devices, dtypes, batch sizes and steps, but no folders, pages or jobs. May import `objectives`,
`parameterizations` and everything below.
"""
