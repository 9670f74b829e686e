"""Benchmarks; NOTES.md records what was learned from them."""
