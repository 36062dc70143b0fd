//! Where in a user's program something came to be: a file and a line.
//!
//! 1. A site is two numbers: what is kept of a file is its name, once.
//! 2. Not knowing it is no error.

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;
use rustc_hash::FxHashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Files whose names are kept; of those beyond no site is known. Programs that make code of text have no end of them.
const MAX_FILES: usize = 10_000;
/// Frames of this package that may lie between the user's and ours.
const MAX_FRAMES: usize = 8;

static FILES: Mutex<Option<Files>> = Mutex::new(None);

#[derive(Default)]
struct Files {
    names: Vec<Arc<str>>,
    numbers: FxHashMap<Arc<str>, u32>,
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    file: u32,
    line: NonZeroU32,
}

impl Site {
    /// The innermost line of this thread that does not belong to this package.
    pub(crate) fn here(py: Python<'_>) -> Option<Self> {
        Self::look(py).unwrap_or_default()
    }

    fn look(py: Python<'_>) -> PyResult<Option<Self>> {
        static GET_FRAME: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static PACKAGE: PyOnceLock<String> = PyOnceLock::new();
        let package = PACKAGE.get_or_try_init(py, || {
            let folder: String = py.import("pydmrpc")?.getattr("__path__")?.get_item(0)?.extract()?;
            Ok::<_, PyErr>(folder + "/")
        })?;
        let get_frame =
            GET_FRAME.get_or_try_init(py, || Ok::<_, PyErr>(py.import("sys")?.getattr("_getframe")?.unbind()))?;
        let mut frame = get_frame.bind(py).call0()?;
        for _ in 0..MAX_FRAMES {
            let name = frame.getattr(intern!(py, "f_code"))?.getattr(intern!(py, "co_filename"))?;
            let name = name.cast::<PyString>()?.to_str()?;
            if !name.starts_with(package.as_str()) {
                let line = frame.getattr(intern!(py, "f_lineno"))?.extract().ok().and_then(NonZeroU32::new);
                return Ok(line.and_then(|line| Some(Self { file: file(name)?, line })));
            }
            frame = frame.getattr(intern!(py, "f_back"))?;
            if frame.is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// For people: `file:line`.
    pub(crate) fn text(self) -> String {
        let files = FILES.lock();
        let name = files.as_ref().and_then(|files| files.names.get(self.file as usize));
        format!("{}:{}", name.map_or("?", |name| name), self.line)
    }
}

/// The number of a file's name.
fn file(name: &str) -> Option<u32> {
    let mut files = FILES.lock();
    let files = files.get_or_insert_default();
    if let Some(&number) = files.numbers.get(name) {
        return Some(number);
    }
    if files.names.len() == MAX_FILES {
        return None;
    }
    let (number, name) = (files.names.len() as u32, Arc::<str>::from(name));
    files.names.push(name.clone());
    files.numbers.insert(name, number);
    Some(number)
}
