//! The last tier: the only one that looks at the image.

use super::tier::{Tier, failed};
use crate::codec;
use crate::header::{Kind, Output, Refusal, Work};
use crate::service::{Answer, Bits, Image, Request};
use dmrpc_actors::actor;
use dmrpc_objstore::Store;

/// A transcode worker.
pub(crate) struct Worker {
    pub(crate) tier: Tier,
    pub(crate) store: Store,
}

#[actor]
impl Worker {
    /// Does the work, one request after the other.
    #[message]
    pub(crate) async fn serve(&mut self, request: Request) -> Result<Answer, Refusal> {
        let arrived = self.tier.arrived(&request);
        let Request { header, image } = request;
        let bits = image.read().await.map_err(failed(&self.tier))?;
        let (sum, image) = match header.work {
            Work::Checksum => (crc32fast::hash(&bits), None),
            Work::Echo => (crc32fast::hash(&bits), Some(image)),
            Work::Transcode(output) => {
                let (sum, jpeg) = self.transcode(header.kind, output, bits).await?;
                let image = match image {
                    Image::Value(_) => Image::Value(jpeg.into()),
                    Image::Reference(_) => Image::Reference(self.store.put(&jpeg).await.map_err(failed(&self.tier))?),
                };
                (sum, Some(image))
            }
        };
        let answer = Answer { sum, image, held_intact: None, stops: Vec::new() };
        Ok(self.tier.answered(arrived, answer))
    }

    /// Transcodes on a thread of its own, so that this process stays able to answer.
    async fn transcode(&self, kind: Kind, output: Output, bits: Bits) -> Result<(u32, Vec<u8>), Refusal> {
        let work = tokio::task::spawn_blocking(move || {
            let sum = crc32fast::hash(&bits);
            codec::transcode(&bits, kind, output).map(|jpeg| (sum, jpeg))
        });
        let result = work.await.map_err(failed(&self.tier))?;
        result.map_err(|error| Refusal::Unreadable(error.to_string()))
    }
}
