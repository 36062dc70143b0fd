//! The chain over gRPC.

use crate::chain::{Case, LONGEST};
use crate::process::{self, Role};
use dmrpc_turns::grpc::{self, Client, Frame, Service};
use dmrpc_turns::process::{Process, Stop, ready};
use dmrpc_turns::{Order, Turn, payload};
use tonic::Status;

struct Link {
    next: Option<Client>,
}

impl Service for Link {
    /// The head of a request is how many others after this one are to pass it on; that of an answer, the sum.
    async fn call(&self, request: Frame) -> Result<Frame, Status> {
        let more: u32 = request.head()?;
        match (more, &self.next) {
            (0, _) => Ok(Frame::new(&request.bodies.first().map_or(0, |object| payload::sum(object)), Vec::new())),
            (more, Some(next)) => next.call(Frame::new(&(more - 1), request.bodies)).await,
            (_, None) => Err(Status::failed_precondition("the chain is too short")),
        }
    }
}

/// Serves a link of the chain until told to stop.
pub(crate) async fn serve(next: Option<String>, stop: Stop) -> anyhow::Result<()> {
    let next = match next {
        Some(url) => Some(Client::connect(&url).await?),
        None => None,
    };
    let (listener, address) = grpc::listen().await?;
    ready(&format!("http://{address}"))?;
    Ok(grpc::serve(listener, Link { next }, stop.wait()).await?)
}

pub(crate) fn take_turns() -> anyhow::Result<()> {
    let mut links: Vec<Process> = Vec::new();
    for _ in 0..LONGEST {
        let next = links.last().map(|link| link.url().to_owned());
        links.push(process::start(&Role::GrpcLink { next })?);
    }
    let runtime = process::runtime()?;
    let first = runtime.block_on(Client::connect(links.last().expect("there are some").url()))?;
    dmrpc_turns::take(|Order::<Case> { case, time, .. }| {
        let bytes = payload::bytes(case.size);
        let expected = payload::sum(&bytes);
        let bytes = bytes::Bytes::from(bytes);
        let first = first.clone();
        let operation = move |_| {
            let first = first.clone();
            let pass = Frame::new(&(case.actors - 1), vec![bytes.clone()]);
            async move {
                let sum: u64 = first.call(pass).await?.head()?;
                anyhow::ensure!(sum == expected, "the last one saw other bytes");
                Ok(())
            }
        };
        runtime.block_on(async {
            operation(0).await?;
            let measured = dmrpc_turns::run(case.load, time, operation).await?;
            Ok(Turn::new(&measured, format!("{expected:016x}")))
        })
    })
}
