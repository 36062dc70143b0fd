"""A backend of joblib: its batches run as tasks of a pool."""

from __future__ import annotations

from typing import Any


def register_ray() -> None:
    """Makes ``joblib.parallel_backend("ray")`` run on this package. As :func:`register_dmrpc`, for programs that say so."""
    _register("ray")


def register_dmrpc() -> None:
    """Makes ``joblib.parallel_backend("dmrpc")`` run on this package.

    Example::

        register_dmrpc()
        with joblib.parallel_backend("dmrpc", n_jobs=4):
            joblib.Parallel()(joblib.delayed(f)(x) for x in items)

    Raises:
        ImportError: if joblib is not installed.
    """
    _register("dmrpc")


def _register(name: str) -> None:
    from joblib.parallel import register_parallel_backend

    register_parallel_backend(name, _backend())


def _backend() -> Any:
    """The class, made here since joblib is no dependency of the package."""
    from joblib._parallel_backends import MultiprocessingBackend

    import pydmrpc
    from pydmrpc.util.multiprocessing import Pool

    class Backend(MultiprocessingBackend):  # type: ignore[misc]
        supports_sharedmem = False

        def configure(self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any) -> int:
            n_jobs = self.effective_n_jobs(n_jobs)
            self._pool: Pool | None = Pool(n_jobs)
            self.parallel = parallel
            return n_jobs

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            if n_jobs == 0:
                raise ValueError("n_jobs == 0 has no meaning")
            if n_jobs is None:
                return 1
            if n_jobs > 0:
                return n_jobs
            if not pydmrpc.is_initialized():
                pydmrpc.init()
            cpus = int(pydmrpc.cluster_resources().get("CPU", 1))
            return max(1, cpus + 1 + n_jobs)

        def terminate(self) -> None:
            if self._pool is not None:
                self._pool.close()
                self._pool.terminate()
                self._pool = None

    return Backend
