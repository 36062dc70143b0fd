//! Waiting for the store on a thread of Python's.
//!
//! 1. What is ready at once is taken without letting go of the GIL; a wait lets go of it.
//! 2. A wait ends at its deadline, and, on the main thread, within [`SIGNAL_CHECK`] of a signal whose handler raises.
//! 3. Nobody who wakes a waiter needs the GIL.

use crate::errors;
use dmrpc_objstore::StoreError;
use pyo3::prelude::*;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How often a waiting thread looks whether Python got a signal.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    after: Duration,
}

impl Deadline {
    /// None of the caller's; the store has its own.
    pub(crate) const NEVER: Self = Self { at: None, after: Duration::MAX };

    /// The moment, if there is one.
    pub(crate) fn at(self) -> Option<Instant> {
        self.at
    }

    /// Whether it is so near that an answer may be late for it.
    pub(crate) fn is_short(self) -> bool {
        self.after < Duration::from_millis(10)
    }

    /// The exception for when it has passed.
    pub(crate) fn passed(self, py: Python<'_>) -> PyErr {
        let message = format!("nothing within {:?}; ask again, or with a longer timeout", self.after);
        errors::named(py, "GetTimeoutError", message)
    }

    /// So many seconds from now; `None` for never.
    pub(crate) fn after_seconds(seconds: Option<f64>) -> PyResult<Self> {
        let Some(seconds) = seconds else { return Ok(Self::NEVER) };
        let after = Duration::try_from_secs_f64(seconds).map_err(|_| {
            pyo3::exceptions::PyValueError::new_err(format!(
                "a timeout is a number of seconds from 0 on, not {seconds}"
            ))
        })?;
        Ok(Self { at: Instant::now().checked_add(after), after })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// One for each thread, so that waiting allocates nothing. A stray token only costs one more look.
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Runs `future`, an operation of the store, to its end.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    deadline: Deadline,
    future: impl Future<Output = Result<T, StoreError>> + Send,
) -> PyResult<T> {
    wait_for(py, deadline, future)?.map_err(|error| errors::of_store(py, &error))
}

/// Runs any `future` to its end.
pub(crate) fn wait_for<T: Send>(
    py: Python<'_>,
    deadline: Deadline,
    future: impl Future<Output = T> + Send,
) -> PyResult<T> {
    let mut future = pin!(future);
    let waker = WAKER.with(Waker::clone);
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
        return Ok(output);
    }
    loop {
        let until = Instant::now() + SIGNAL_CHECK;
        let polled = py.detach(|| {
            loop {
                let now = Instant::now();
                let limit = deadline.at.map_or(until, |at| at.min(until));
                if now >= limit {
                    return None;
                }
                thread::park_timeout(limit - now);
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(output);
                }
            }
        });
        if let Some(output) = polled {
            return Ok(output);
        }
        py.check_signals()?;
        if deadline.at.is_some_and(|at| Instant::now() >= at) {
            return Err(deadline.passed(py));
        }
    }
}
