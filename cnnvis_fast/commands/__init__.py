"""The command line: what each command's options are called, what it prints, and its exit code.

Nothing imports this package except `python -m cnnvis_fast` and the console script. It may import everything.
"""
