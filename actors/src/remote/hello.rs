//! What systems tell each other first.

use super::frame::{BadHead, Data, Frame, Kind, MAGIC, VERSION};
use serde::{Deserialize, Serialize};

/// What a system says about itself when a link begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// What it calls itself.
    pub(crate) system: String,
    /// Where it can be reached, if it listens.
    pub(crate) address: Option<String>,
    /// The memory nodes that its refs lead to: number and address.
    pub(crate) nodes: Vec<(u32, String)>,
}

impl Hello {
    /// Passes the frame that says it to `send`.
    pub(crate) fn encode<R>(&self, send: impl FnOnce(&Frame<'_>) -> R) -> R {
        let payload = postcard::to_stdvec(self).expect("strings and numbers serialize");
        send(&Frame {
            target: VERSION,
            message: MAGIC,
            data: Data::Head { payload: &payload, table: &[] },
            ..Frame::new(Kind::Hello)
        })
    }

    pub(crate) fn decode(frame: &Frame<'_>) -> Result<Self, BadHead> {
        match frame.data {
            _ if frame.kind != Kind::Hello => Err(BadHead("something else before a hello")),
            _ if frame.message != MAGIC => Err(BadHead("hello without the magic number")),
            _ if frame.target != VERSION => Err(BadHead("hello of another version of the protocol")),
            Data::Head { payload, table: [] } => {
                postcard::from_bytes(payload).map_err(|_| BadHead("hello that says nothing"))
            }
            _ => Err(BadHead("hello with a body")),
        }
    }
}
