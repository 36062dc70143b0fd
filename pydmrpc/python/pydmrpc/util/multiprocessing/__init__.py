"""`multiprocessing.Pool` whose processes are actors."""

from multiprocessing import TimeoutError

from pydmrpc.util.multiprocessing.pool import AsyncResult, IMapIterator, Pool

__all__ = ["AsyncResult", "IMapIterator", "Pool", "TimeoutError"]
