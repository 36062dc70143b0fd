//! Calls to actors by name, for callers that know no types: other languages.

use crate::remote::codec::Codec;
use crate::remote::frame::{Frame, Kind, MAX_NAME_BYTES};
use crate::remote::peer::Answer;
use crate::remote::route::{Boxed, Joined, Place, Route, ask_over, remaining_ms};
use crate::system::split_address;
use crate::{ActorError, System};
use dmrpc_objstore::AnyRef;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A handle to an actor whose type is not known here. Methods are called by name, with arguments in MessagePack.
///
/// The futures can be awaited anywhere, also by [`block_on`](dmrpc_objstore::block_on) on a plain thread.
#[derive(Clone)]
pub struct DynamicRef {
    system: System,
    route: Arc<Route>,
}

/// What a dynamic call answers: MessagePack, and the references that stand in it as extensions of type
/// [`REF_EXTENSION`](dmrpc_objstore::REF_EXTENSION) with their place in this list, four bytes little endian.
#[derive(Clone, Debug)]
pub struct DynamicAnswer {
    /// The answer in MessagePack, structs as maps.
    pub value: Vec<u8>,
    /// The references of the answer.
    pub refs: Vec<AnyRef>,
}

impl System {
    /// A handle to the actor at `address#name`, whatever its type.
    ///
    /// # Errors
    ///
    /// As [`connect`](System::connect).
    pub async fn connect_dynamic(&self, address: &str) -> Result<DynamicRef, ActorError> {
        let (place, name) = split_address(address)?;
        // Also an actor of this very system is reached by its link: what is dynamic is bytes.
        let place = self.0.links.learn(place);
        let route = Route::new(self.clone(), Place::Address(place), name.into(), 0);
        let deadline = Instant::now() + self.ask_timeout();
        let (joining, deadlines) = (Arc::clone(&route), Arc::clone(self.deadlines()));
        let join = async move { deadlines.within(deadline, joining.join(deadline)).await };
        self.on_runtime(join).await?;
        Ok(DynamicRef { system: self.clone(), route })
    }
}

impl DynamicRef {
    /// Calls `method`. `arguments` is one MessagePack array (or a map by names), in which the references of `refs` stand as
    /// [`DynamicAnswer`] says. Waits at most `within`, or the system's default.
    ///
    /// # Errors
    ///
    /// As any call.
    pub fn call(
        &self,
        method: &str,
        arguments: Vec<u8>,
        refs: Vec<AnyRef>,
        within: Option<Duration>,
    ) -> Boxed<DynamicAnswer> {
        let (route, method, within) = (Arc::clone(&self.route), method.to_owned(), self.within(within));
        let deadlines = Arc::clone(self.system.deadlines());
        self.system.on_runtime(async move {
            let deadline = Instant::now() + within;
            let call = async move {
                check_method(&method)?;
                let Joined { peer, actor } = route.join(deadline).await?;
                peer.has_room().await;
                let frame = Frame {
                    codec: Codec::MessagePack as u8,
                    target: actor,
                    timeout_ms: remaining_ms(deadline),
                    name: &method,
                    ..Frame::new(Kind::Ask)
                };
                let write = move |output: &mut crate::Output<'_>| output.write_raw(&arguments, &refs);
                let read = |answer: Answer<'_>| {
                    let refs = answer.arguments.references()?;
                    Ok(DynamicAnswer { value: answer.arguments.payload.to_vec(), refs })
                };
                ask_over(&peer, frame, Codec::MessagePack, write, read).await
            };
            deadlines.within(deadline, call).await
        })
    }

    /// As [`call`](Self::call), without an answer.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), as far as it is known here.
    pub fn tell(&self, method: &str, arguments: Vec<u8>, refs: Vec<AnyRef>, within: Option<Duration>) -> Boxed<()> {
        let (route, method, within) = (Arc::clone(&self.route), method.to_owned(), self.within(within));
        let deadlines = Arc::clone(self.system.deadlines());
        self.system.on_runtime(async move {
            let deadline = Instant::now() + within;
            let send = async move {
                check_method(&method)?;
                let Joined { peer, actor } = route.join(deadline).await?;
                peer.has_room().await;
                let frame =
                    Frame { codec: Codec::MessagePack as u8, target: actor, name: &method, ..Frame::new(Kind::Tell) };
                peer.send(frame, Codec::MessagePack, move |output| output.write_raw(&arguments, &refs))
            };
            deadlines.within(deadline, send).await
        })
    }

    fn within(&self, within: Option<Duration>) -> Duration {
        within.unwrap_or_else(|| self.system.ask_timeout())
    }
}

impl std::fmt::Debug for DynamicRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DynamicRef({})", self.route)
    }
}

fn check_method(method: &str) -> Result<(), ActorError> {
    if method.is_empty() || method.len() > MAX_NAME_BYTES {
        return Err(ActorError::UnknownMessage(method.into()));
    }
    Ok(())
}
