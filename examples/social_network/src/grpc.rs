//! The same services over gRPC, to be compared with. Media travel as bodies beside the message, so that they are not copied into it.

use crate::call::{Answer, Call, Content, Failure, Media, Role};
use crate::net::Net;
use crate::services::Service;
use anyhow::Context as _;
use bytes::Bytes;
use dmrpc_turns::grpc::{self, Client, Frame};
use dmrpc_turns::process::ready;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Status;

/// Serves until `stop`.
pub(crate) async fn serve(
    service: Arc<Service>,
    others: HashMap<Role, Client>,
    stop: impl Future,
) -> anyhow::Result<()> {
    let (listener, address) = grpc::listen().await?;
    ready(&format!("http://{address}"))?;
    Ok(grpc::serve(listener, Served { service, net: Net::Grpc(others) }, stop).await?)
}

/// Connections to all of them.
pub(crate) async fn connect_all(urls: &HashMap<Role, String>) -> anyhow::Result<HashMap<Role, Client>> {
    let mut clients = HashMap::new();
    for (&role, url) in urls {
        let client = Client::connect(url).await.with_context(|| format!("{role:?} at {url} can't be reached"))?;
        clients.insert(role, client);
    }
    Ok(clients)
}

/// Asks a service.
pub(crate) async fn call(client: &Client, role: Role, mut call: Call) -> Result<Answer, Failure> {
    let unreachable = |why: Status| Failure::Unreachable { role, why: why.to_string() };
    let bodies = take_out(media_of_call(&mut call));
    let answer = client.call(Frame::new(&call, bodies)).await.map_err(unreachable)?;
    let mut found: Result<Answer, Failure> = answer.head().map_err(unreachable)?;
    if let Ok(found) = &mut found {
        put_back(media_of_answer(found), answer.bodies).map_err(unreachable)?;
    }
    found
}

struct Served {
    service: Arc<Service>,
    net: Net,
}

impl grpc::Service for Served {
    async fn call(&self, request: Frame) -> Result<Frame, Status> {
        let mut call: Call = request.head()?;
        put_back(media_of_call(&mut call), request.bodies)?;
        let mut answer = self.service.answer(call, &self.net).await;
        let bodies = answer.as_mut().map_or(Vec::new(), |answer| take_out(media_of_answer(answer)));
        Ok(Frame::new(&answer, bodies))
    }
}

fn media_of_call(call: &mut Call) -> Vec<&mut Media> {
    match call {
        Call::Compose { media, .. } | Call::Admit { media } => media.iter_mut().collect(),
        Call::StorePost { post } => post.media.iter_mut().collect(),
        _ => Vec::new(),
    }
}

fn media_of_answer(answer: &mut Answer) -> Vec<&mut Media> {
    match answer {
        Answer::Media(media) => media.iter_mut().collect(),
        Answer::Posts(posts) => posts.iter_mut().flat_map(|post| &mut post.media).collect(),
        _ => Vec::new(),
    }
}

fn take_out(media: Vec<&mut Media>) -> Vec<Bytes> {
    let take = |media: &mut Media| match std::mem::replace(&mut media.content, Content::Beside) {
        Content::Value(bytes) => bytes,
        // References mean nothing here: nobody makes any.
        Content::Reference(_) | Content::Beside => Bytes::new(),
    };
    media.into_iter().map(take).collect()
}

fn put_back(media: Vec<&mut Media>, bodies: Vec<Bytes>) -> Result<(), Status> {
    if media.len() != bodies.len() {
        return Err(Status::invalid_argument(format!("{} media with {} bodies", media.len(), bodies.len())));
    }
    for (media, body) in media.into_iter().zip(bodies) {
        media.content = Content::Value(body);
    }
    Ok(())
}
