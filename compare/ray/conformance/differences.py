"""Cases that end otherwise than on Ray, each with the reason."""

_COPY_ON_WRITE = (
    "arrays are copy-on-write here: they can be written, and nobody else sees it; `get(ref, writable=False)` is Ray's way"
)
_MISTAKE = "a mistake in the program text: a TypeError or ValueError that says what to do, where Ray asserts"
_ACCELERATORS = "accelerators are counted, and not told apart"
_BETTER_TYPE = "the exception itself, where Ray wraps what its queue's actor raised"

DIFFERENCES: dict[str, str] = {
    "get_a_tuple": "tuples of references are taken as lists are",
    "remote_of_what_is_no_function": _MISTAKE,
    "remote_with_positional_options": _MISTAKE,
    "method_with_unknown_options": _MISTAKE,
    "queue_empty_and_full": _BETTER_TYPE,
    "queue_batches": _BETTER_TYPE,
    "queue_asynchronously": _BETTER_TYPE,
    "pool_callbacks": "an error callback is given what the function raised, as with `multiprocessing`",
    "pool_imap_of_a_failure": "the iterator raises what the function raised, as with `multiprocessing`",
    "placement_group_mistakes": "a negative amount in a bundle is an error",
    "an_array_from_get_can_be_written": _COPY_ON_WRITE,
    "an_array_argument_can_be_written": _COPY_ON_WRITE,
    "bytes_of_every_kind": "a bytearray comes back as one; Ray makes it bytes",
    "refs_after_shutdown": "a small value travels with its reference, and can be read for as long as that is there",
    "a_store_that_is_full": "the store is a limit here; Ray spills to disk",
    "state_gets_one": "a wrong filter is a ValueError; Ray raises a pydantic error",
    "guide_accelerators": _ACCELERATORS,
    "guide_parts_of_accelerators": _ACCELERATORS,
    "guide_the_creator_dies": "an actor lives as long as somebody has a handle of it; on Ray it dies with the process that made it",
    "guide_the_runtime_context": "a name that was given to a task is its function's name, too",
    "guide_an_array_can_not_be_written": _COPY_ON_WRITE,
    "workers_go_when_their_driver_is_killed": "workers end with the driver that is killed; Ray's are still there 40 seconds later",
}
