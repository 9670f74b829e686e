"""Benchmarks; see NOTES.md for what was learnt from them."""
