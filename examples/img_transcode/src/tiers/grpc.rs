//! The same tiers as gRPC services, to be compared with: by value, since gRPC has no other way. They decide by the same code.

use super::balancer::{Turn, marked};
use super::crew::Crew;
use super::dispatcher::{MAX_WAITING, PLACES};
use super::gauge::Counters;
use super::pick::Picker;
use super::process::ready;
use super::rules::Rules;
use super::spec::{NextIs, Role};
use super::tier::{Tier, failed};
use crate::codec;
use crate::header::{Header, Refusal, Work};
use crate::service::{Answer, Image, Request};
use anyhow::Context as _;
use dmrpc_turns::grpc::{self, Client, Frame, Service};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;
use tonic::Status;

/// What a tier does with a request.
enum Duty {
    Firewall { rules: Mutex<Rules>, next: Box<Client> },
    Balancer { picker: Arc<Mutex<Picker>>, next: Vec<Client>, next_is: NextIs },
    Dispatcher { crew: Crew, workers: Vec<Client> },
    Worker,
}

struct Server {
    tier: Tier,
    duty: Duty,
}

/// Plays a tier until `stop`.
pub(super) async fn play(name: String, role: Role, stop: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let duty = match role {
        Role::MemoryNode { .. } => anyhow::bail!("by value nobody needs a memory node"),
        Role::Firewall { policy, next, .. } => {
            Duty::Firewall { rules: Mutex::new(Rules::new(policy)), next: Box::new(connect(&next).await?) }
        }
        Role::Balancer { policy, next, next_is, .. } => {
            let picker = Arc::new(Mutex::new(Picker::new(policy, next.len())));
            Duty::Balancer { picker, next: connect_all(&next).await?, next_is }
        }
        Role::Dispatcher { workers, .. } => {
            let crew = Crew::new(workers.len(), PLACES, MAX_WAITING);
            Duty::Dispatcher { crew, workers: connect_all(&workers).await? }
        }
        Role::Worker { .. } => Duty::Worker,
    };
    let (listener, address) = grpc::listen().await?;
    ready(&format!("http://{address}"))?;
    let tier = Tier { name: name.into(), counters: Arc::<Counters>::default() };
    Ok(grpc::serve(listener, Server { tier, duty }, stop).await?)
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    Client::connect(url).await.with_context(|| format!("the next tier at {url} can't be reached"))
}

async fn connect_all(urls: &[String]) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(urls.len());
    for url in urls {
        clients.push(connect(url).await?);
    }
    Ok(clients)
}

/// Has another tier serve a request.
pub(crate) async fn serve(next: &Client, request: Request, tier: &Tier) -> Result<Answer, Refusal> {
    let Request { header, image } = request;
    let Image::Value(bytes) = image else {
        return Err(failed(tier)("a reference can't be sent over gRPC"));
    };
    let mut answer = next.call(Frame::new(&header, vec![bytes])).await.map_err(failed(tier))?;
    let image = answer.bodies.pop().map(Image::Value);
    let served: Result<Answer, Refusal> = answer.head().map_err(failed(tier))?;
    Ok(Answer { image, ..served? })
}

impl Service for Server {
    async fn call(&self, mut request: Frame) -> Result<Frame, Status> {
        let header: Header = request.head()?;
        let image = request.bodies.pop().ok_or_else(|| Status::invalid_argument("a request without an image"))?;
        let mut served = self.serve(Request { header, image: Image::Value(image) }).await;
        let image = match served.as_mut().ok().and_then(|answer| answer.image.take()) {
            Some(Image::Value(bytes)) => vec![bytes],
            _ => Vec::new(),
        };
        Ok(Frame::new(&served, image))
    }
}

impl Server {
    async fn serve(&self, mut request: Request) -> Result<Answer, Refusal> {
        let tier = &self.tier;
        let arrived = tier.arrived(&request);
        let answer = match &self.duty {
            Duty::Firewall { rules, next } => {
                let admitted = rules.lock().unwrap_or_else(PoisonError::into_inner).admit(
                    &request.header,
                    request.image.len(),
                    Instant::now(),
                );
                admitted?;
                serve(next, request, tier).await?
            }
            Duty::Balancer { picker, next, next_is } => {
                let turn = Turn::new(picker, &request);
                if let (NextIs::Dispatchers, Some(mark)) = (next_is, request.header.mark) {
                    request.image = marked(request.image, mark, tier).await?;
                }
                serve(&next[turn.server], request, tier).await?
            }
            Duty::Dispatcher { crew, workers } => {
                let place = crew.place().await.map_err(|waiting| Refusal::Busy { waiting })?;
                serve(&workers[place.worker], request, tier).await?
            }
            Duty::Worker => work(tier, request).await?,
        };
        Ok(tier.answered(arrived, answer))
    }
}

async fn work(tier: &Tier, request: Request) -> Result<Answer, Refusal> {
    let Request { header, image } = request;
    let bits = image.read().await.map_err(failed(tier))?;
    let (sum, image) = match header.work {
        Work::Checksum => (crc32fast::hash(&bits), None),
        Work::Echo => (crc32fast::hash(&bits), Some(image)),
        Work::Transcode(output) => {
            let work = tokio::task::spawn_blocking(move || {
                let sum = crc32fast::hash(&bits);
                codec::transcode(&bits, header.kind, output).map(|jpeg| (sum, jpeg))
            });
            let (sum, jpeg) =
                work.await.map_err(failed(tier))?.map_err(|error| Refusal::Unreadable(error.to_string()))?;
            (sum, Some(Image::Value(jpeg.into())))
        }
    };
    Ok(Answer { sum, image, held_intact: None, stops: Vec::new() })
}
