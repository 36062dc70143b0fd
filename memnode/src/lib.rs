//! The memory node: a pool of copy-on-write pages, and the authority on who may read what, and until when.

pub mod core;
