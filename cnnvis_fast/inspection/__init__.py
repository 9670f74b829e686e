"""Inspects a network without ascent: activation maps, filter weights, top patches, natural statistics.

Knows how to run a network on photos and show its activations. May import `ascent` and everything below it.
"""
