"""Networks: load them, name and list their layers, find their preprocessing, cut out a trunk.

Knows every fact about a network that needs no ascent: channels, receptive fields, memory, digests. May import
`images`, `program`, `texturenet` and everything below.
"""
