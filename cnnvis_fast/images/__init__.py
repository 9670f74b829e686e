"""Pictures as pixels: read photos, know what natural images are like, draw contact sheets.

May import `config` and the modules below it.
"""
