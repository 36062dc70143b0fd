//! What a request says about itself: all that the tiers between the client and the workers ever read.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The number of the request, unique in a run.
    pub(crate) request: u64,
    /// Who asks.
    pub(crate) client: Ipv4Addr,
    /// How the image is encoded.
    pub(crate) kind: Kind,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// Its width in pixels.
    pub(crate) width: u32,
    /// Its height in pixels.
    pub(crate) height: u32,
    /// What is to be done with it.
    pub(crate) work: Work,
    /// Where the third balancer is to put its watermark, if anywhere.
    pub(crate) mark: Option<Mark>,
    /// The checksum of the image, if the firewall is to hold on to it and to check, once the answer is there, that what it
    /// holds is still the original.
    pub(crate) audit: Option<u32>,
    /// Whether each tier writes down when it saw the request and when its answer.
    pub(crate) trace: bool,
}

/// How an image is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// TIFF, not compressed, in tiles of one page each: what one page of it shows can be changed by writing that page.
    TiledTiff,
    /// Bytes that are no image, to be moved and summed only.
    Opaque,
}

/// What the last tier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Read every byte once, and answer with their checksum: what is left is the cost of moving them.
    Checksum,
    /// The same, and send the image back as it came.
    Echo,
    /// Decode, resize so that it fits a square, encode as JPEG.
    Transcode(Output),
}

/// What a transcoded image is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    /// The longer side in pixels, at most.
    pub(crate) side: u32,
    /// JPEG quality, 1 to 100.
    pub(crate) quality: u8,
}

/// The tile that a watermark is to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Where the tile's bytes start in the image.
    pub(crate) offset: u64,
    /// Its width in pixels.
    pub(crate) width: u32,
    /// Its height in pixels.
    pub(crate) height: u32,
}

impl Mark {
    /// The tile's size in bytes, four a pixel.
    pub(crate) fn bytes(self) -> usize {
        (self.width as usize).saturating_mul(self.height as usize).saturating_mul(4)
    }
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// By the firewall: that client may not.
    #[error("{0} is not in a network that is served")]
    Blocked(Ipv4Addr),
    /// By the firewall: that client asks too often.
    #[error("{client} is over its rate of {per_second} requests a second")]
    TooOften {
        /// Who.
        client: Ipv4Addr,
        /// What it may.
        per_second: u32,
    },
    /// By the firewall: too many bytes.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// What came.
        bytes: u64,
        /// What may.
        limit: u64,
    },
    /// By the firewall: too many pixels, whatever they were compressed to.
    #[error("{width} x {height} pixels are over the limit of {limit}")]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What may be.
        limit: u64,
    },
    /// By the firewall: bytes that are no image, to be transcoded.
    #[error("that is no image")]
    WrongType,
    /// By the firewall: the header says something else than what came.
    #[error("the header says {header} bytes, and {came} came")]
    WrongLength {
        /// Said.
        header: u64,
        /// There.
        came: u64,
    },
    /// By the dispatcher: all workers are busy and its queue is full.
    #[error("all workers are busy, and {waiting} requests wait already")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// By the last balancer: the tile for the watermark is not in the image.
    #[error("a watermark at byte {offset} is outside the image of {bytes} bytes")]
    MarkOutside {
        /// Where it should go.
        offset: u64,
        /// The image's size.
        bytes: u64,
    },
    /// By a worker: the image can't be decoded.
    #[error("the image can't be read: {0}")]
    Unreadable(String),
    /// By any tier: it can't get on.
    #[error("{tier} can't get on: {why}")]
    Failed {
        /// Which.
        tier: String,
        /// Why.
        why: String,
    },
}
