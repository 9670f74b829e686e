"""Images as pixels: reads photos, knows the statistics of natural images, draws contact sheets.

May import `config` and the modules below it.
"""
