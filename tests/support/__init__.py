"""Helpers that tests share: samples of every op, small networks, atlases, processes that can be killed."""
