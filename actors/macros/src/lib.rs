//! The `#[actor]` attribute of `dmrpc-actors`. Its reader's guide is at [`macro@actor`].
#![forbid(unsafe_code)]

mod expand;
mod method;

use proc_macro::TokenStream;

/// Turns an `impl` block into an actor: every `#[message]` method can be called through an `ActorRef`.
///
/// ```text
/// #[actor]                                    // #[actor(local)]: arguments need no serde, the actor can't be reached from outside
/// impl Counter {                              // #[actor(name = "Counter")]: its name on links, else that of the type
///     #[message]                              // async or not; arguments are owned; the answer is what it returns
///     async fn add(&mut self, n: u64) -> u64 { .. }
///
///     #[message(id = 7)]                      // an explicit number on links; else the FNV-1a hash of "Counter::reset"
///     fn reset(&mut self, cx: &mut Context<Self>) { .. }
///
///     #[message(detached)]                    // the future that it returns runs beside the actor, which takes the next message
///     fn fetch(&mut self, url: String) -> impl Future<Output = Bytes> { .. }
///
///     #[started]
///     async fn open(&mut self, cx: &mut Context<Self>) { .. }
///
///     #[stopped]
///     async fn close(&mut self, exit: &Exit) { .. }
///
///     fn helper(&self) { .. }                 // any other method is left alone
/// }
/// ```
///
/// For `Counter` it makes
///
/// * `CounterAdd { n }`, a `Message<Counter>`, for every method;
/// * `CounterMessage`, the enum of them that the mailbox holds;
/// * `CounterHandle`, which `ActorRef<Counter>` dereferences to: `counter.add(2)` asks, `counter.tell_add(2)` tells;
/// * the `impl Actor for Counter`.
///
/// Arguments and answers need `Serialize` and `DeserializeOwned`, as bounds of the `impl` where they are generic, unless the actor is
/// `local`. `Bytes` arguments and answers need nothing, and long ones travel without being copied.
#[proc_macro_attribute]
pub fn actor(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let attribute = syn::parse_macro_input!(attribute as expand::Options);
    let block = syn::parse_macro_input!(item as syn::ItemImpl);
    expand::expand(&attribute, block).unwrap_or_else(syn::Error::into_compile_error).into()
}
