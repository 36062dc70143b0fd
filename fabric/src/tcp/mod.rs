//! Links over TCP.

use crate::address::Address;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

pub(crate) enum Acceptor {}

impl Acceptor {
    pub(crate) fn bind(_: &str, _: u16) -> Result<Self, LinkError> {
        Err(LinkError::Unsupported("tcp"))
    }
    pub(crate) fn try_accept(&mut self, _: &LinkOptions) -> Result<Option<Link>, LinkError> {
        match *self {}
    }
    pub(crate) fn address(&self) -> Address {
        match *self {}
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

pub(crate) fn connect(_: &str, _: u16, _: &LinkOptions, _: Instant) -> Result<Link, LinkError> {
    Err(LinkError::Unsupported("tcp"))
}
