"""Networks: loads them, names and lists their layers, finds their preprocessing and cuts out a trunk.

Knows every fact about a network that needs no ascent: channels, receptive fields, memory, digests. May import
`images`, `program`, `texturenet` and everything below them.
"""
