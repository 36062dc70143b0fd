//! Actors of other processes: links, and what is said over them. `docs/actors.md` draws the bytes.

pub(crate) mod answer;
pub(crate) mod attach;
pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod hello;
pub(crate) mod links;
pub(crate) mod passing;
pub(crate) mod peer;
pub(crate) mod reader;
pub(crate) mod route;
pub(crate) mod writer;
