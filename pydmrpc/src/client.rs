//! The store that this process uses, from `init` to `shutdown`.
//!
//! 1. There is at most one; a new one may follow after a shutdown, but not in a fork of the process.
//! 2. References of a store that was shut down raise; memory that arrays show stays readable.

use crate::actor;
use crate::errors;
use crate::fork::Native;
use crate::runtime;
use crate::wait::{Deadline, wait};
use dmrpc_objstore::{EmbeddedOptions, Store, StoreError, StoreOptions, block_on};
use dmrpc_pages::{ByteSize, PageSize};
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Where the first store was started. The store's library can't start again in a fork of that process.
static HOME: OnceLock<Native<()>> = OnceLock::new();

static STORE: Mutex<Option<Native<Store>>> = Mutex::new(None);

/// How many sessions were ended. What belongs to one of them is dead.
static ENDED: AtomicU32 = AtomicU32::new(0);

/// A session of this process, the first or a later one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionNumber(u32);

impl SessionNumber {
    /// The one that runs, or the next one if none does.
    pub(crate) fn current() -> Self {
        // Relaxed: who uses a reference while another thread shuts the store down may come before or after that.
        Self(ENDED.load(Ordering::Relaxed))
    }
}

/// The pool of an embedded node, unless one is asked for: this part of the host's memory.
const POOL_PART_OF_MEMORY: u64 = 4;

/// The store, started with all defaults if there is none.
pub(crate) fn store(py: Python<'_>) -> PyResult<Store> {
    if let Some(store) = current(py)? {
        return Ok(store);
    }
    if let Some(url) = runtime::store_url() {
        py.detach(|| connect_quietly(&url)).map_err(|error| errors::of_store(py, &error))?;
    } else {
        py.import("pydmrpc")?.call_method0("init")?;
    }
    current(py)?
        .ok_or_else(|| PyRuntimeError::new_err("pydmrpc was shut down while it was being used; call init() again"))
}

/// Connects a process without a store to the node of its hub. Not with the GIL.
pub(crate) fn connect_quietly(url: &str) -> Result<(), StoreError> {
    let mut current = STORE.lock();
    if !matches!(&*current, Some(store) if !store.is_foreign()) {
        HOME.get_or_init(|| Native::new(()));
        let mut options = StoreOptions::new(url);
        options.name = format!("python {}", std::process::id());
        *current = Some(Native::new(block_on(Store::connect_with(options))?));
    }
    Ok(())
}

/// The store, if there is one.
pub(crate) fn current(py: Python<'_>) -> PyResult<Option<Store>> {
    let current = STORE.lock();
    match &*current {
        Some(store) if store.is_foreign() => Err(errors::forked(py)),
        Some(store) => Ok(Some((**store).clone())),
        None => Ok(None),
    }
}

/// A number of bytes, as an int or as text such as "4GiB".
fn bytes(value: &Bound<'_, PyAny>, what: &str) -> PyResult<u64> {
    if let Ok(text) = value.cast::<PyString>() {
        let size = text.to_str()?.parse::<ByteSize>();
        return size.map(ByteSize::bytes).map_err(|error| PyValueError::new_err(format!("{what}: {error}")));
    }
    let number = value.extract::<u64>();
    number.map_err(|_| PyTypeError::new_err(format!("{what} is a number of bytes, or text like \"4GiB\", not {value}")))
}

fn host_memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    total.map_or(4 << 30, |kib: u64| kib << 10)
}

/// Starts or joins a memory node. See `pydmrpc.init`.
#[pyfunction]
#[pyo3(signature = (address, pool, page_size, token, name, quota, deadline_seconds, listen))]
#[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of init")]
pub(crate) fn start(
    py: Python<'_>,
    address: Option<&str>,
    pool: Option<Bound<'_, PyAny>>,
    page_size: Option<Bound<'_, PyAny>>,
    token: Option<Vec<u8>>,
    name: Option<String>,
    quota: Option<Bound<'_, PyAny>>,
    deadline_seconds: f64,
    listen: Vec<String>,
) -> PyResult<()> {
    if matches!(&*STORE.lock(), Some(store) if !store.is_foreign()) {
        return Err(PyRuntimeError::new_err("pydmrpc.init() was called before; call pydmrpc.shutdown() first"));
    }
    if HOME.get_or_init(|| Native::new(())).is_foreign() {
        return Err(errors::forked(py));
    }
    let mut options = StoreOptions::new(address.unwrap_or_default());
    options.token = token.unwrap_or_default();
    options.name = name.unwrap_or_else(|| format!("python {}", std::process::id()));
    options.deadline = Duration::try_from_secs_f64(deadline_seconds)
        .map_err(|_| PyValueError::new_err(format!("deadline of {deadline_seconds} seconds")))?;
    if let Some(quota) = quota {
        options.quota_bytes = bytes(&quota, "quota")?;
    }
    let store = match address {
        Some(_) => {
            if pool.is_some() || page_size.is_some() || !listen.is_empty() {
                let message = "pool, page_size and listen are for a node that is started here; with address= an existing one is joined";
                return Err(PyValueError::new_err(message));
            }
            wait(py, Deadline::NEVER, Store::connect_with(options))?
        }
        None => {
            let mut embedded = EmbeddedOptions::default();
            embedded.store = options;
            let listen = listen.into_iter().map(|address| address.parse()).collect::<Result<_, _>>();
            embedded.node.listen = listen.map_err(|error| PyValueError::new_err(format!("listen: {error}")))?;
            embedded.node.pool_bytes = match pool {
                Some(pool) => bytes(&pool, "pool")?,
                None => host_memory_bytes() / POOL_PART_OF_MEMORY,
            };
            if let Some(page_size) = page_size {
                let page_size = PageSize::new(bytes(&page_size, "page_size")?);
                embedded.node.page_size = page_size.map_err(|error| PyValueError::new_err(error.to_string()))?;
            }
            // Making the pool takes a moment, which other threads have.
            let started = py.detach(|| block_on(Store::embedded_with(embedded)));
            started.map_err(|error| errors::of_store(py, &error))?
        }
    };
    let mut current = STORE.lock();
    match &*current {
        Some(other) if !other.is_foreign() => {
            drop(current);
            py.detach(|| store.close());
            Err(PyRuntimeError::new_err("pydmrpc.init() was called on two threads at once"))
        }
        _ => {
            *current = Some(Native::new(store));
            Ok(())
        }
    }
}

/// Ends the session, and the node if it is embedded. Does nothing if there is none.
#[pyfunction]
pub(crate) fn stop(py: Python<'_>) -> PyResult<()> {
    actor::stop(py)?;
    runtime::stop(py);
    let store = STORE.lock().take();
    if store.is_some() {
        ENDED.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(store) = store.filter(|store| !store.is_foreign()) {
        py.detach(|| store.close());
    }
    Ok(())
}

/// Whether there is a store.
#[pyfunction]
pub(crate) fn is_started() -> bool {
    matches!(&*STORE.lock(), Some(store) if !store.is_foreign()) || runtime::store_url().is_some()
}

/// Address, node and page size of the store.
#[pyfunction]
pub(crate) fn about(py: Python<'_>) -> PyResult<(String, String, usize, bool)> {
    let store = store(py)?;
    Ok((store.url().to_owned(), format!("{:08x}", store.node().0), store.page_size(), store.is_local()))
}

/// The node's figures by name.
#[pyfunction]
pub(crate) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let store = store(py)?;
    let stats = wait(py, Deadline::NEVER, store.stats())?;
    let figures = PyDict::new(py);
    macro_rules! set {
        ($($name:ident)*) => { $(figures.set_item(stringify!($name), stats.$name.get())?;)* };
    }
    set!(page_bytes pool_pages committed_pages free_pages unpublished_pages live_pages quarantined_pages logical_pages segments sessions objects tree_nodes holds grants requests replays failures commits frees bytes_read bytes_written pages_copied leases_expired wakeups);
    Ok(figures)
}
