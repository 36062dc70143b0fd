//! The two services, and what goes between them.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use bytes::Bytes;
use dmrpc_actors::{ActorRef, Context, actor};
use dmrpc_objstore::{ObjectRef, Store, View};
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// The key of this demonstration; a real one comes from where keys are kept.
const KEY: [u8; 32] = *b"a key that is known to everybody";

/// A block on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Block {
    /// All of it.
    Value(#[serde(with = "dmrpc_actors::attached")] Bytes),
    /// Where it is.
    Reference(ObjectRef),
}

/// The bytes of a block, to be read.
pub(crate) enum Opened {
    Value(Bytes),
    Reference(View),
}

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Value(bytes) => bytes,
            Self::Reference(view) => view,
        }
    }
}

impl Block {
    pub(crate) async fn open(&self) -> Result<Opened, String> {
        Ok(match self {
            Self::Value(bytes) => Opened::Value(bytes.clone()),
            Self::Reference(reference) => Opened::Reference(reference.get().await.map_err(text)?),
        })
    }

    /// A block made of this one, which travels as it does.
    async fn followed_by(&self, bytes: Vec<u8>, store: &Store) -> Result<Self, String> {
        Ok(match self {
            Self::Value(_) => Self::Value(bytes.into()),
            Self::Reference(_) => Self::Reference(store.put(&bytes).await.map_err(text)?),
        })
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The number that a block is encrypted with; no two blocks of a stream have the same.
fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce
}

fn cipher() -> Aes256Gcm {
    Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&KEY))
}

/// What was sent, out of what came back.
pub(crate) fn undo(number: u64, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let opened = cipher().decrypt(Nonce::from_slice(&nonce(number)), sealed);
    let packed = opened.map_err(|_| anyhow::anyhow!("block {number} was not encrypted with this key"))?;
    Ok(lz4_flex::decompress_size_prepended(&packed)?)
}

/// Compresses blocks, and has them encrypted.
pub(crate) struct Compressor {
    pub(crate) store: Store,
    pub(crate) encryptor: ActorRef<Encryptor>,
}

#[actor]
impl Compressor {
    /// Compresses a block; the answer is what the next service makes of it. Blocks are compressed one after the other, and the next is
    /// begun while this one is encrypted.
    #[message(detached)]
    pub(crate) fn offload(
        &mut self,
        number: u64,
        block: Block,
        context: &mut Context<Self>,
    ) -> impl Future<Output = Result<Block, String>> {
        let (store, encryptor, deadline) = (self.store.clone(), self.encryptor.clone(), context.deadline());
        async move {
            let packed = lz4_flex::compress_prepend_size(&block.open().await?);
            let packed = block.followed_by(packed, &store).await?;
            // What was sent is not needed any more.
            drop(block);
            encryptor.encrypt(number, packed).until(deadline).await.map_err(text)?
        }
    }
}

/// Encrypts blocks.
pub(crate) struct Encryptor {
    pub(crate) store: Store,
    cipher: Aes256Gcm,
}

impl Encryptor {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, cipher: cipher() }
    }
}

#[actor]
impl Encryptor {
    /// Encrypts a block.
    #[message]
    pub(crate) async fn encrypt(&mut self, number: u64, block: Block) -> Result<Block, String> {
        let opened = block.open().await?;
        let sealed = self.cipher.encrypt(Nonce::from_slice(&nonce(number)), &*opened);
        block.followed_by(sealed.map_err(text)?, &self.store).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_can_be_undone() {
        let block = b"to be or not to be ".repeat(100);
        let packed = lz4_flex::compress_prepend_size(&block);
        assert!(packed.len() < block.len() / 4);
        let sealed = cipher().encrypt(Nonce::from_slice(&nonce(7)), &*packed).unwrap();
        assert_eq!(undo(7, &sealed).unwrap(), block);
        assert!(undo(8, &sealed).is_err());
    }
}
