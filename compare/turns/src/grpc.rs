//! gRPC as it is compared with: unary calls over HTTP/2 by tonic, one connection from each process to the next, with the settings that
//! its documentation advises for large messages.
//!
//! Bodies are `bytes` fields that are received without a copy. Heads are in postcard rather than in Protocol Buffers: it is no
//! slower, and both sides of a comparison then encode the same types by the same code.

use bytes::Bytes;
use rpc::frames_client::FramesClient;
use rpc::frames_server::{Frames, FramesServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// What the build script makes of the service.
mod rpc {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/compare.Frames.rs"));
}

/// The largest message.
const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// HTTP/2 windows: what may be under way before the receiver says that it has it.
const WINDOW_BYTES: u32 = 16 << 20;

/// The largest frame of HTTP/2 that a server takes.
const MAX_FRAME_BYTES: u32 = 1 << 20;

const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A request or an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Frame {
    /// What is read.
    #[prost(bytes = "bytes", tag = "1")]
    pub head: Bytes,
    /// What may only be passed on.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub bodies: Vec<Bytes>,
}

impl Frame {
    /// # Panics
    ///
    /// For a head that can't be encoded.
    pub fn new<H: Serialize>(head: &H, bodies: Vec<Bytes>) -> Self {
        let head = postcard::to_allocvec(head).expect("a head has nothing that postcard can't say");
        Self { head: head.into(), bodies }
    }

    /// The head as an `H`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is none.
    pub fn head<H: DeserializeOwned>(&self) -> Result<H, Status> {
        postcard::from_bytes(&self.head).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// What answers frames.
pub trait Service: Send + Sync + 'static {
    /// The answer to a request.
    fn call(&self, request: Frame) -> impl Future<Output = Result<Frame, Status>> + Send;
}

struct Served<S>(S);

#[tonic::async_trait]
impl<S: Service> Frames for Served<S> {
    async fn call(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        Ok(Response::new(self.0.call(request.into_inner()).await?))
    }
}

/// A connection to a service. Clones share it.
#[derive(Clone, Debug)]
pub struct Client(FramesClient<Channel>);

impl Client {
    /// # Errors
    ///
    /// If nobody listens at `url`, such as `http://127.0.0.1:4000`.
    pub async fn connect(url: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(url.to_owned())?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect()
            .await?;
        let client = FramesClient::new(channel);
        Ok(Self(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)))
    }

    /// The answer to a request.
    ///
    /// # Errors
    ///
    /// What the service says, or that it can't be reached.
    pub async fn call(&self, request: Frame) -> Result<Frame, Status> {
        Ok(self.0.clone().call(request).await?.into_inner())
    }
}

/// Where a service is to listen; the system chooses a port of this host.
///
/// # Errors
///
/// What the system says.
pub async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until `stop` is there.
///
/// # Errors
///
/// What the transport says.
pub async fn serve(
    listener: TcpListener,
    service: impl Service,
    stop: impl Future,
) -> Result<(), tonic::transport::Error> {
    let service = FramesServer::new(Served(service))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .add_service(service)
        .serve_with_incoming(connections);
    tokio::select! {
        served = serving => served,
        _ = stop => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    struct Doubler;

    impl Service for Doubler {
        async fn call(&self, request: Frame) -> Result<Frame, Status> {
            let n: u32 = request.head()?;
            Ok(Frame::new(&(2 * n), request.bodies))
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn there_and_back() {
        let (listener, address) = listen().await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, Doubler, stopped));
        let client = Client::connect(&format!("http://{address}")).await.unwrap();
        let body = Bytes::from(vec![7; 5 << 20]);
        let answer = client.call(Frame::new(&21_u32, vec![body.clone()])).await.unwrap();
        assert_eq!((answer.head::<u32>().unwrap(), &answer.bodies[..]), (42, &[body][..]));
        let refused = client.call(Frame { head: Bytes::from_static(&[0xff; 20]), bodies: Vec::new() }).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}
