"""What can go wrong, under the names that Ray programs catch.

Every message ends with what to do next. ``RayError`` is the root of all that is not also a Python mistake of the caller
(``TypeError``, ``ValueError``, ``IndexError``).
"""

from __future__ import annotations

__all__ = [
    "AccessDeniedError",
    "ActorAlreadyExistsError",
    "ActorClassInheritanceException",
    "ActorDiedError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "CrossLanguageError",
    "DmrpcError",
    "ForkError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "MalformedError",
    "NodeDiedError",
    "NodeUnreachableError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectReconstructionFailedLineageEvictedError",
    "ObjectReconstructionFailedMaxAttemptsExceededError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "QuotaExceededError",
    "RayActorError",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UserCodeException",
    "WorkerCrashedError",
]


class DmrpcError(Exception):
    """The root of all errors of this package."""


#: The name that Ray programs know the root by.
RayError = DmrpcError


class RaySystemError(DmrpcError):
    """The store, or the connection to it, does not work as it should."""


class NodeUnreachableError(RaySystemError, ConnectionError):
    """The memory node is gone, was never there, or the session with it is over.

    Call :func:`pydmrpc.shutdown`, then :func:`pydmrpc.init`: objects in a node that still runs are reached again through
    grants, those of a node that is gone are lost.
    """


class ForkError(RaySystemError):
    """This process was forked after :func:`pydmrpc.init`, and uses what belongs to its parent.

    The threads and the session of the store stayed in the parent. Start processes with ``multiprocessing``'s ``spawn``
    method, and hand references over as grants; or fork before :func:`pydmrpc.init`.
    """


class MalformedError(RaySystemError, ValueError):
    """Bytes that make no sense: an object that holds no Python value, a text that is no grant, a peer of another version."""


class AccessDeniedError(RaySystemError, PermissionError):
    """The memory node denies it: the token is wrong, or the object is another tenant's."""


class GetTimeoutError(DmrpcError, TimeoutError):
    """What was asked for did not come within the ``timeout``. It may still come: ask again, or wait for longer."""


class ObjectLostError(DmrpcError):
    """The object is not there any more: its last holder let it go, or died, before this process took hold of it.

    Keep a reference, or make a grant (``ref.grant(ttl)``), for as long as the object is needed.
    """


class ObjectStoreFullError(DmrpcError):
    """The pool of the memory node has no room. Drop references, or start it with a larger ``pool``."""


class QuotaExceededError(ObjectStoreFullError):
    """This session has used up its share of the pool. Drop references, or connect with a larger ``quota``."""


class ObjectFetchTimedOutError(ObjectLostError):
    """The object did not come in time from where it is."""


class ObjectFreedError(ObjectLostError):
    """The object was let go of by hand."""


class OwnerDiedError(ObjectLostError):
    """Never raised: objects here outlive who made them. For programs that catch it."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """Never raised. For programs that catch it."""


class ObjectReconstructionFailedError(ObjectLostError):
    """Never raised: objects are not made anew from the tasks that made them. For programs that catch it."""


class ObjectReconstructionFailedMaxAttemptsExceededError(ObjectReconstructionFailedError):
    """Never raised. For programs that catch it."""


class ObjectReconstructionFailedLineageEvictedError(ObjectReconstructionFailedError):
    """Never raised. For programs that catch it."""


class OutOfDiskError(DmrpcError):
    """There is no room on disk."""


class OutOfMemoryError(DmrpcError):
    """The host has no memory for the task."""


class RpcError(DmrpcError):
    """A process could not be reached."""


class UserCodeException(DmrpcError):
    """Code of the user's raised where it was not expected to."""


class CrossLanguageError(DmrpcError):
    """A program in another language raised."""


class RuntimeEnvSetupError(DmrpcError):
    """The environment that a task or actor asked for could not be made."""


class LocalRayletDiedError(DmrpcError):
    """The process with the hub is gone."""


class NodeDiedError(DmrpcError):
    """The host is gone."""


class TaskCancelledError(DmrpcError):
    """The task was cancelled, by :func:`pydmrpc.cancel`."""


class WorkerCrashedError(DmrpcError):
    """The worker's process ended while it ran the task: the message says how, and what it printed last."""


class TaskUnschedulableError(DmrpcError):
    """There will never be what the task needs."""


class TaskPlacementGroupRemoved(DmrpcError):
    """The placement group of the task was removed."""


class RayTaskError(DmrpcError):
    """A task or a method raised. What ``get`` raises is an instance of what was raised, too::

        try:
            pydmrpc.get(f.remote())
        except ZeroDivisionError as error:      # or RayTaskError
            print(error.cause)

    Its text is the traceback of the process that ran it.
    """

    def __init__(self, traceback_str: str = "", cause: BaseException | None = None, pid: int = 0, message: str = "") -> None:
        # Not what comes next: what is also an instance of what was raised would call that one's.
        Exception.__init__(self, message or traceback_str)
        #: The traceback, as text.
        self.traceback_str = traceback_str
        #: What was raised; None if it can't be pickled.
        self.cause = cause
        #: The process that ran it.
        self.pid = pid

    def __str__(self) -> str:
        return self.traceback_str

    def as_instanceof_cause(self) -> BaseException:
        """An exception that is an instance of the cause, too."""
        from pydmrpc import _task_error

        return self if self.cause is None else _task_error.as_instance(self.traceback_str, self.cause, self.pid)


class RayActorError(DmrpcError):
    """An actor did not do what was asked of it."""

    #: The actor's id, in hex; None where it is not known.
    actor_id: str | None = None


class ActorDiedError(RayActorError):
    """The actor is gone: it was killed, it crashed, or its process ended. Make another."""


class ActorUnavailableError(RayActorError):
    """The actor can't be reached just now: it is being made again, or the way to it is gone. Try again."""


class ActorAlreadyExistsError(DmrpcError, ValueError):
    """There is an actor of this name. Take another, find it with ``get_actor``, or make it with ``get_if_exists=True``."""


class ActorClassInheritanceException(TypeError, DmrpcError):
    """A class is derived from an actor class. Derive from the class before it is decorated, and decorate what comes of it."""


class RayChannelError(DmrpcError):
    """A channel between actors failed. There are no such channels here: nothing raises it."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel between actors timed out. There are no such channels here: nothing raises it."""


class ActorUnschedulableError(DmrpcError):
    """There will never be what the actor needs."""


class ActorPlacementGroupRemoved(DmrpcError):
    """The placement group of the actor was removed."""


class AsyncioActorExit(DmrpcError):
    """An async actor exits."""


class PendingCallsLimitExceeded(DmrpcError):
    """Too many calls of the actor are pending. Wait for some before making more."""
