"""What can go wrong, under the names that Ray programs catch.

Every message ends with what to do next. ``RayError`` is the root of all that is not also a Python mistake of the caller
(``TypeError``, ``ValueError``, ``IndexError``).
"""

__all__ = [
    "AccessDeniedError",
    "ActorDiedError",
    "ActorUnavailableError",
    "DmrpcError",
    "ForkError",
    "GetTimeoutError",
    "MalformedError",
    "NodeUnreachableError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "PendingCallsLimitExceeded",
    "QuotaExceededError",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
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


class RayTaskError(DmrpcError):
    """A handler raised: the message has what it said."""


class RayActorError(DmrpcError):
    """An actor did not do what was asked of it."""


class ActorDiedError(RayActorError):
    """The actor is gone: it was stopped, it crashed, or its process ended. Connect to another."""


class ActorUnavailableError(RayActorError):
    """The actor can't be reached just now: its process or the way to it is gone. Connect anew and try again."""


class PendingCallsLimitExceeded(DmrpcError):
    """The actor's mailbox is full. Wait for replies before sending more."""
