"""The same small programs on Ray and on pydmrpc: do they end alike?

A case is a function of the system's module. What it returns, or the type of what it raises, is its outcome; two systems agree
where outcomes are equal. Ray's outcomes are recorded in `recorded/ray.json`, so that a check of pydmrpc needs no Ray.
"""
