//! The core of the Python package `pydmrpc`.
//!
//! | file | noun |
//! | --- | --- |
//! | `layout.rs` | how a value lies in an object: payload, meta part, trailer |
//! | `scalars.rs` | the codec of `None`, numbers and small tuples |
//! | `encode.rs`, `decode.rs` | from a value to bytes and back |
//! | `numpy.rs` | arrays, without a dependency on numpy |
//! | `foreign.rs` | buffers of other Python objects, copied without the GIL |
//! | `region.rs`, `page_buffer.rs` | memory of the store that Python looks at |
//! | `derive.rs` | storing what came from the store: only what changed |
//! | `sharing.rs` | how many pages two objects have in common |
//! | `form.rs` | what the bytes of a reference are, and what an index names |
//! | `objectref.rs`, `stored.rs`, `edit.rs` | references, what they are to, edits; `put` and `get` |
//! | `held.rs`, `site.rs` | what this process has references to, and where they came to be |
//! | `runtime/` | tasks and actors: hub, workers, results |
//! | `actor.rs`, `message.rs` | calls to actors of any language, and what travels to and from actors of any language |
//! | `client.rs` | the store of this process |
//! | `wait.rs`, `errors.rs`, `fork.rs`, `reduce.rs` | waiting, exceptions, forks, references within pickles |
//!
//! 1. No thread but Python's own takes the GIL.
//! 2. A wait, and a copy that takes a while, lets go of the GIL.
//! 3. A panic is a bug: PyO3 turns it into a `PanicException` at the caller.
#![deny(unsafe_code)]

mod actor;
mod client;
mod decode;
#[expect(unsafe_code, reason = "reads buffers that Python may write")]
mod derive;
mod edit;
mod encode;
mod errors;
#[expect(unsafe_code, reason = "reads buffers that Python may write")]
mod foreign;
#[expect(unsafe_code, reason = "leaves a value undropped")]
mod fork;
mod form;
mod held;
mod layout;
mod message;
#[expect(unsafe_code, reason = "lends memory to numpy")]
mod numpy;
mod objectref;
#[expect(unsafe_code, reason = "exports buffers")]
mod page_buffer;
mod reduce;
#[expect(unsafe_code, reason = "memory that Python may write")]
mod region;
mod runtime;
mod scalars;
mod sharing;
mod site;
mod stored;
mod wait;

use pyo3::prelude::*;

/// The core of `pydmrpc`. Use the package, not this module.
#[pymodule(gil_used = true)]
mod _core {
    use super::*;

    #[pymodule_export]
    use crate::actor::{Actor, connect};
    #[pymodule_export]
    use crate::client::{about, is_started, start, stats, stop};
    #[pymodule_export]
    use crate::edit::Edit;
    #[pymodule_export]
    use crate::message::{_message, _read_message};
    #[pymodule_export]
    use crate::objectref::{
        _decode, _encode, _from_bytes, _from_grant, _lent, _promised, ObjectRef, allocate, get, put, redeem,
    };
    #[pymodule_export]
    use crate::page_buffer::PageBuffer;
    #[pymodule_export]
    use crate::runtime::{
        _actor, _ask, _define, _exits, _held, _hub_address, _interrupted, _join, _own_actor, _serve, _take_interrupted,
        _take_printed, _work, ActorRef, Call, Calls, Completions, Method, Task, cancel, create_actor, current,
        get_named, kill, wait,
    };
    #[pymodule_export]
    use crate::sharing::sharing;

    /// Called in the child after a fork.
    #[pyfunction]
    fn _forked() {
        crate::fork::in_child();
    }
}
