"""Who makes which pictures: `maximize`, `atlas`, and the engines that resume them after an interruption.

Knows what a job's pictures are a function of, which are missing, and who makes them: this process or Ray's
workers. May import `results` and everything below it, not `commands`, `compat` or `page`.
"""
