//! How a link begins: the handshake, if there is one, and a hello each way.
#![forbid(unsafe_code)]

use super::stream::Stream;
use crate::link::LinkError;
use crate::options::LinkOptions;
use std::io::{IoSlice, IoSliceMut};

const MAGIC: [u8; 8] = *b"DmRPCtcp";
const VERSION: u32 = 1;
const HELLO_BYTES: usize = 24;

/// What a TLS record begins with: an alert or a handshake, and the version.
const TLS_RECORDS: [[u8; 2]; 2] = [[21, 3], [22, 3]];

/// Which side says hello first. Over TLS the connector is second: see `docs/tls.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Connector,
    Acceptor,
}

/// A link as it begins.
pub(super) struct Greeting {
    pub(super) stream: Stream,
    side: Side,
    has_said: bool,
    hello: [u8; HELLO_BYTES],
    /// How much of the peer's came.
    filled: usize,
}

impl Greeting {
    pub(super) fn new(stream: Stream, side: Side) -> Self {
        Self { stream, side, has_said: false, hello: [0; HELLO_BYTES], filled: 0 }
    }

    /// Says hello, if nothing has to come before that.
    pub(super) fn begin(&mut self, options: &LinkOptions) -> Result<(), LinkError> {
        if self.stream.is_within_tls() { Ok(()) } else { self.say_hello(options) }
    }

    /// Goes on, as far as it can without the peer. The peer's body limit when it is over.
    ///
    /// # Errors
    ///
    /// [`LinkError`]: there will be no link.
    pub(super) fn go_on(&mut self, options: &LinkOptions) -> Result<Option<u64>, LinkError> {
        if !self.stream.shake_hands()? {
            return Ok(None);
        }
        let is_second = self.side == Side::Connector && self.stream.is_within_tls();
        if !is_second {
            self.say_hello(options)?;
        }
        while self.filled < HELLO_BYTES {
            let parts = &mut [IoSliceMut::new(&mut self.hello[self.filled..])];
            let Some(count) = self.stream.read(parts, true)? else { return Ok(None) };
            self.filled += count;
            self.check_magic()?;
        }
        if self.hello[8..12] != VERSION.to_le_bytes() {
            return Err(LinkError::Protocol("the peer speaks another version"));
        }
        self.say_hello(options)?;
        Ok(Some(u64::from_le_bytes(self.hello[16..].try_into().expect("eight bytes"))))
    }

    fn check_magic(&self) -> Result<(), LinkError> {
        let came = &self.hello[..self.filled.min(MAGIC.len())];
        if *came == MAGIC[..came.len()] {
            return Ok(());
        }
        if !self.stream.is_within_tls()
            && TLS_RECORDS.iter().any(|record| record.starts_with(&came[..came.len().min(2)]))
        {
            return Err(LinkError::Protocol("TLS, at an address that is tcp://: is the peer's tls://?"));
        }
        Err(LinkError::Protocol("a hello of something else"))
    }

    /// Says hello, once, into a socket that has room for it.
    fn say_hello(&mut self, options: &LinkOptions) -> Result<(), LinkError> {
        if std::mem::replace(&mut self.has_said, true) {
            return Ok(());
        }
        let mut hello = [0; HELLO_BYTES];
        hello[..8].copy_from_slice(&MAGIC);
        hello[8..12].copy_from_slice(&VERSION.to_le_bytes());
        hello[16..].copy_from_slice(&options.max_body_bytes.to_le_bytes());
        match self.stream.write(&[IoSlice::new(&hello)])? {
            Some(HELLO_BYTES) => Ok(()),
            _ => Err(LinkError::Closed),
        }
    }
}
