//! The client's side: blocks of a file that are sent, and what comes back.

use crate::process::Services;
use crate::service::{Block, Compressor, undo};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dmrpc_actors::{ActorRef, System};
use dmrpc_objstore::Store;
use std::sync::Arc;

/// The most blocks of a file that are taken; beyond that they come again.
const MAX_BLOCKS: usize = 256;

/// How blocks travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    Value,
    Reference,
}

/// Blocks, and what comes back for each.
pub(crate) struct Stream {
    store: Store,
    compressor: ActorRef<Compressor>,
    blocks: Vec<Bytes>,
    /// Checksums of what has to come back.
    sums: Vec<u32>,
    _system: System,
}

impl Stream {
    /// The blocks of a file, each sent once both ways and looked at.
    pub(crate) async fn open(services: &Services, file: &[u8], block_bytes: usize) -> anyhow::Result<Arc<Self>> {
        let (store, system, compressor) = services.connect().await?;
        let blocks: Vec<Bytes> = file.chunks(block_bytes).take(MAX_BLOCKS).map(Bytes::copy_from_slice).collect();
        ensure!(!blocks.is_empty(), "the file is empty");
        let mut stream = Self { store, compressor, blocks, sums: Vec::new(), _system: system };
        let by_value = stream.check(Passing::Value).await?;
        let by_reference = stream.check(Passing::Reference).await?;
        ensure!(by_value == by_reference, "by value and by reference came back differently");
        stream.sums = by_value;
        Ok(Arc::new(stream))
    }

    /// Sends every block and undoes what was done to it. The checksums of what came back.
    async fn check(&self, passing: Passing) -> anyhow::Result<Vec<u32>> {
        let mut sums = Vec::with_capacity(self.blocks.len());
        for (number, block) in self.blocks.iter().enumerate() {
            let sealed = self.ask(number as u64, passing).await?;
            ensure!(undo(number as u64, &sealed)? == block[..], "block {number} came back as another");
            sums.push(crc32fast::hash(&sealed));
        }
        Ok(sums)
    }

    async fn ask(&self, number: u64, passing: Passing) -> anyhow::Result<crate::service::Opened> {
        let block = &self.blocks[number as usize];
        let block = match passing {
            Passing::Value => Block::Value(block.clone()),
            Passing::Reference => Block::Reference(self.store.put(block).await?),
        };
        let sealed = self.compressor.offload(number, block).await?.map_err(anyhow::Error::msg)?;
        sealed.open().await.map_err(anyhow::Error::msg)
    }

    /// One block of many.
    pub(crate) async fn send(&self, n: u64, passing: Passing) -> anyhow::Result<()> {
        let number = n % self.blocks.len() as u64;
        let sealed = self.ask(number, passing).await?;
        ensure!(
            crc32fast::hash(&sealed) == self.sums[number as usize],
            "block {number} came back otherwise than before"
        );
        Ok(())
    }

    /// One number for all that comes back, the same whichever way.
    pub(crate) fn answer(&self) -> String {
        let all: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        format!("{:08x}", crc32fast::hash(&all))
    }

    /// The mean size of a block.
    pub(crate) fn mean_bytes(&self) -> f64 {
        self.blocks.iter().map(Bytes::len).sum::<usize>() as f64 / self.blocks.len() as f64
    }
}

/// The file that is sent where none is named: this very program.
pub(crate) fn own_program() -> anyhow::Result<Vec<u8>> {
    std::fs::read(std::env::current_exe()?).context("reading this program")
}
