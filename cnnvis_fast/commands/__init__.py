"""The command line: the options of each command, what it prints, and its exit code.

Each command has an `add_NAME`, which declares its options, and a `run_NAME`, side by side; `main` lists them.
Only `python -m cnnvis_fast` and the console script import this package. It may import everything.
"""
