//! What an actor is, and what its messages are.

use crate::remote::codec::{Arguments, Output};
use crate::{ActorError, Context, Exit, Mail, Recipient, Reply};

/// A value that handles messages one at a time.
///
/// [`#[actor]`](macro@crate::actor) implements it; by hand it looks like this:
///
/// ```
/// use dmrpc_actors::{Actor, ActorError, Context, Mail, Plain, Reply, System};
///
/// struct Counter(u64);
///
/// enum CounterMessage {
///     Add(u64, Reply<u64>),
/// }
///
/// impl Mail for CounterMessage {
///     fn fail(self, error: ActorError) {
///         let Self::Add(_, reply) = self;
///         reply.fail(error);
///     }
///     fn is_abandoned(&self) -> bool {
///         let Self::Add(_, reply) = self;
///         reply.is_abandoned()
///     }
///     fn is_ask(&self) -> bool {
///         let Self::Add(_, reply) = self;
///         reply.is_awaited()
///     }
/// }
///
/// struct Add(u64);
///
/// impl dmrpc_actors::Message<Counter> for Add {
///     type Reply = u64;
///     const ID: u32 = 1;
///     const NAME: &'static str = "add";
///     fn into_mail(self, reply: Reply<u64>) -> CounterMessage {
///         CounterMessage::Add(self.0, reply)
///     }
/// }
///
/// impl Actor for Counter {
///     type Message = CounterMessage;
///     type Handle = Plain<Self>;
///     const TYPE: &'static str = "Counter";
///
///     async fn handle(&mut self, message: CounterMessage, _: &mut Context<Self>) {
///         let CounterMessage::Add(n, reply) = message;
///         self.0 += n;
///         reply.send(self.0);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ActorError> {
/// let system = System::builder().build().await?;
/// let counter = system.spawn(Counter(40));
/// assert_eq!(counter.ask(Add(2)).await?, 42);
/// # Ok(())
/// # }
/// ```
pub trait Actor: Sized + Send + 'static {
    /// Every message that the actor takes: one enum, so that a mailbox is one queue without boxes.
    type Message: Mail;

    /// What a ref to the actor dereferences to: its methods, as seen from outside. [`Plain`] for none.
    type Handle: Handle<Self>;

    /// The actor's type as it is called on links.
    const TYPE: &'static str;

    /// Handles a message and answers it.
    fn handle(&mut self, message: Self::Message, context: &mut Context<Self>) -> impl Future<Output = ()> + Send;

    /// Comes before the first message.
    fn started(&mut self, context: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// Comes after the last message, unless the actor crashed or was killed.
    fn stopped(&mut self, exit: &Exit, context: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = (exit, context);
        async {}
    }

    /// A message from a link.
    ///
    /// # Errors
    ///
    /// [`ActorError::UnknownMessage`] for a method that there is not, which is all of them for an actor that never leaves its
    /// process; [`ActorError::Malformed`] and [`ActorError::Reference`] for arguments that can't be understood.
    fn decode(arguments: Arguments<'_>) -> Result<Self::Message, ActorError> {
        Err(arguments.unknown())
    }
}

/// The arguments of one method of `A`.
pub trait Message<A: Actor>: Sized + Send + 'static {
    /// What the method answers.
    type Reply: Send + 'static;

    /// The method's number on links. Never reused for another method.
    const ID: u32;

    /// The method's name.
    const NAME: &'static str;

    /// The message with the place that its answer goes to.
    fn into_mail(self, reply: Reply<Self::Reply>) -> A::Message;

    /// The arguments as bytes.
    ///
    /// # Errors
    ///
    /// [`ActorError::Malformed`] for what can't be serialized, as is everything of an actor that never leaves its process;
    /// [`ActorError::Reference`] for references that can't be passed.
    fn encode(&self, output: &mut Output<'_>) -> Result<(), ActorError> {
        let _ = output;
        Err(never_leaves())
    }

    /// An answer as bytes.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    fn encode_reply(reply: &Self::Reply, output: &mut Output<'_>) -> Result<(), ActorError> {
        let _ = (reply, output);
        Err(never_leaves())
    }

    /// An answer from bytes.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    fn decode_reply(arguments: Arguments<'_>) -> Result<Self::Reply, ActorError> {
        Err(arguments.unknown())
    }
}

fn never_leaves() -> ActorError {
    ActorError::Malformed("this actor's messages never leave its process".into())
}

/// What an [`ActorRef`](crate::ActorRef) dereferences to.
pub trait Handle<A: Actor>: Clone + Send + Sync + 'static {
    /// The handle to this recipient.
    fn new(recipient: Recipient<A>) -> Self;

    /// The recipient.
    fn recipient(&self) -> &Recipient<A>;
}

/// The handle of an actor without methods of its own: everything goes by [`ask`](crate::ActorRef::ask) and
/// [`tell`](crate::ActorRef::tell).
pub struct Plain<A: Actor>(Recipient<A>);

impl<A: Actor> Clone for Plain<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> Handle<A> for Plain<A> {
    fn new(recipient: Recipient<A>) -> Self {
        Self(recipient)
    }

    fn recipient(&self) -> &Recipient<A> {
        &self.0
    }
}
