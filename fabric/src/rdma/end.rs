//! Why a channel is of no more use.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use dmrpc_rdma_sys::raw::*;
use dmrpc_rdma_sys::status_text;

/// Small, so that each operation that ends with the channel has its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Closed,
    Protocol(&'static str),
    Status(ibv_wc_status),
    Device,
}

impl End {
    pub(super) fn error(self) -> LinkError {
        let io = |text: &'static str| LinkError::Io { doing: "using RDMA", source: std::io::Error::other(text) };
        match self {
            Self::Closed => LinkError::Closed,
            Self::Protocol(what) => LinkError::Protocol(what),
            Self::Status(IBV_WC_WR_FLUSH_ERR | IBV_WC_RETRY_EXC_ERR | IBV_WC_RNR_RETRY_EXC_ERR) => LinkError::Closed,
            Self::Status(status) => io(status_text(status)),
            Self::Device => io("the device took no more work"),
        }
    }
}
