"""Jobs: `maximize`, `atlas`, and the engines that make an atlas's tiles and resume after an interruption.

Knows what a job's pictures are a function of, which are missing, and who makes them: this process or Ray's
workers. May import `results` and everything below it, but not `commands`, `compat` or `page`.
"""
