//! The first tier: sends images, reads what comes back, and checks it.
//!
//! 1. By reference, each request has a reference of its own: made for it, dropped when its answer is there.
//! 2. Every answer is compared with what it has to be; one that differs ends the run.

use crate::codec::{self, CodecError};
use crate::header::{Header, Kind, Refusal, Work};
use crate::load::{Item, Load};
use crate::measure::{Latencies, Round};
use crate::options::Passing;
use crate::service::{Answer, Image, Request};
use crate::tiers::firewall::Firewall;
use crate::tiers::gauge::Counters;
use bytes::Bytes;
use dmrpc_actors::{ActorError, ActorRef};
use dmrpc_objstore::{ObjectRef, Store, StoreError};
use image::imageops::{self, FilterType};
use indicatif::ProgressBar;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The service doesn't serve it.
    #[error("{name} was refused: {refusal}")]
    Refused {
        /// The image.
        name: String,
        /// Why.
        refusal: Refusal,
    },
    /// The service can't be talked to.
    #[error("the service can't be reached")]
    Actor(#[from] ActorError),
    /// The memory node doesn't do what it should.
    #[error("the object store fails")]
    Store(#[from] StoreError),
    /// A result can't be decoded.
    #[error("a result can't be decoded")]
    Codec(#[from] CodecError),
    /// A wrong result.
    #[error("{name}, sent {passing}: {what}")]
    Wrong {
        /// The image.
        name: String,
        /// How it was sent.
        passing: Passing,
        /// What is wrong.
        what: String,
    },
}

/// The client.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) firewall: ActorRef<Firewall>,
    pub(crate) store: Store,
    /// What went out and came back, as the other tiers count it.
    pub(crate) counters: Arc<Counters>,
    /// The number of the next request.
    next: Arc<AtomicU64>,
}

/// What is asked beside the work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// The firewall holds on to the image, and says whether it is still the original when the answer is there.
    pub(crate) audit: bool,
    /// Each tier says when it saw the request and the answer.
    pub(crate) trace: bool,
}

/// A request that was answered.
pub(crate) struct Served {
    /// What was sent, which is held on to for as long as this.
    pub(crate) sent: Image,
    /// What came back.
    pub(crate) answer: Answer,
    /// The image that came back, if one did.
    pub(crate) result: Option<Bytes>,
}

impl Client {
    pub(crate) fn new(firewall: ActorRef<Firewall>, store: Store) -> Self {
        Self { firewall, store, counters: Arc::default(), next: Arc::default() }
    }

    /// Sends one image and checks the answer.
    pub(crate) async fn send(
        &self,
        lane: u32,
        item: &Item,
        work: Work,
        passing: Passing,
        extras: Extras,
    ) -> Result<Served, ClientError> {
        let header = self.header(lane, item, work, extras);
        let image = match passing {
            Passing::Value => Image::Value(item.bytes.clone()),
            Passing::Reference => Image::Reference(self.store.put(&item.bytes).await?),
        };
        // A clone of a reference, or of a handle to the bytes that stay with this client anyway.
        let sent = image.clone();
        let answer = self.ask(Request { header, image }).await?;
        let in_answer = answer.as_ref().ok().and_then(|answer| answer.image.as_ref());
        self.counters.count(sent.bytes_in_message() + in_answer.map_or(0, Image::bytes_in_message));
        let answer = answer.map_err(|refusal| ClientError::Refused { name: item.name.clone(), refusal })?;
        let wrong = |what: &str| ClientError::Wrong { name: item.name.clone(), passing, what: what.to_owned() };
        let result = match &answer.image {
            None => None,
            Some(Image::Value(bytes)) => Some(bytes.clone()),
            Some(Image::Reference(reference)) => Some(Bytes::from_owner(reference.get().await?)),
        };
        let transcoded = matches!(work, Work::Transcode(_));
        let sum = if transcoded { result.as_deref().map(crc32fast::hash) } else { Some(answer.sum) };
        if sum != Some(item.expected) {
            return Err(wrong("the result is not what it has to be"));
        }
        if answer.held_intact == Some(false) {
            return Err(wrong("the image that the firewall held on to has changed"));
        }
        Ok(Served { sent, answer, result })
    }

    /// Sends a request, whatever it is.
    pub(crate) async fn ask(&self, request: Request) -> Result<Result<Answer, Refusal>, ActorError> {
        self.firewall.serve(request).deadline(DEADLINE).await
    }

    /// The header for an image, from one of many clients.
    pub(crate) fn header(&self, lane: u32, item: &Item, work: Work, extras: Extras) -> Header {
        Header {
            request: self.next.fetch_add(1, Relaxed),
            client: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + lane),
            kind: item.kind,
            bytes: item.bytes.len() as u64,
            width: item.width,
            height: item.height,
            work,
            mark: item.mark,
            audit: extras.audit.then_some(item.sum),
            trace: extras.trace,
        }
    }

    /// Sends many requests, `concurrency` at a time.
    pub(crate) async fn round(
        &self,
        load: &Arc<Load>,
        passing: Passing,
        requests: u32,
        concurrency: u32,
        progress: &ProgressBar,
    ) -> Result<Round, ClientError> {
        let mut lanes = JoinSet::new();
        let taken = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        for lane in 0..concurrency {
            let (client, load, taken, progress) =
                (self.clone(), Arc::clone(load), Arc::clone(&taken), progress.clone());
            lanes.spawn(async move {
                let mut latencies = Latencies::new();
                loop {
                    let n = taken.fetch_add(1, Relaxed);
                    if n >= u64::from(requests) {
                        return Ok::<_, ClientError>(latencies);
                    }
                    let item = &load.items[(n % load.items.len() as u64) as usize];
                    let start = Instant::now();
                    client.send(lane, item, load.work, passing, Extras::default()).await?;
                    latencies.record(start.elapsed());
                    progress.inc(1);
                }
            });
        }
        let mut latencies = Latencies::new();
        while let Some(lane) = lanes.join_next().await {
            latencies.add(&lane.expect("a lane is not cancelled, and does not panic")?);
        }
        Ok(Round::new(&latencies, start.elapsed()))
    }

    /// Makes an object of an image.
    pub(crate) async fn put(&self, item: &Item) -> Result<ObjectRef, StoreError> {
        self.store.put(&item.bytes).await
    }
}

/// The size in pixels of a transcoded image, and how like it is to its original, resized by another way, in decibels.
pub(crate) fn look_at(item: &Item, jpeg: &[u8]) -> Result<((u32, u32), f64), CodecError> {
    let result = codec::decode(jpeg, Kind::Jpeg)?;
    let original = codec::decode(&item.bytes, item.kind)?;
    let (width, height) = result.dimensions();
    let reference = imageops::resize(&original, width, height, FilterType::CatmullRom);
    Ok(((width, height), codec::psnr_db(&result, &reference)))
}
