//! What `#[actor]` makes of an `impl` block.

use crate::method::{self, Call, Hook, HookParameter, Message, Parameter, Role};
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote};
use std::collections::HashMap;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, GenericParam, ImplItem, ItemImpl, Result, Type};

/// The arguments of the attribute.
pub(crate) struct Options {
    local: bool,
    name: Option<syn::LitStr>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self { local: false, name: None };
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("local") {
                options.local = true;
                Ok(())
            } else if meta.path.is_ident("name") {
                options.name = Some(meta.value()?.parse()?);
                Ok(())
            } else {
                Err(meta.error("expected `local` or `name = \"..\"`"))
            }
        });
        syn::parse::Parser::parse2(parser, input.parse()?)?;
        Ok(options)
    }
}

/// A message and the names that are made for it.
struct Made {
    message: Message,
    /// The struct of its arguments.
    ty: Ident,
    /// Its variant of the enum.
    variant: Ident,
    id: u32,
}

pub(crate) fn expand(options: &Options, mut block: ItemImpl) -> Result<TokenStream> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new(path.span(), "#[actor] goes on the actor's own `impl` block, not on that of a trait"));
    }
    let actor = actor_name(&block.self_ty)?;
    if let Some(lifetime) = block.generics.lifetimes().next() {
        return Err(Error::new(lifetime.span(), "an actor outlives its maker: it can't borrow"));
    }
    let self_ty = block.self_ty.to_token_stream();
    let captures = captures(&block);
    let mut messages = Vec::new();
    let (mut started, mut stopped) = (None, None);
    let mut errors: Option<Error> = None;
    let mut fail = |error: Error| match &mut errors {
        Some(errors) => errors.combine(error),
        none => *none = Some(error),
    };
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        match method::read(method, &self_ty, &captures) {
            Ok(None) => {}
            Ok(Some(Role::Message(message))) => messages.push(message),
            Ok(Some(Role::Started(hook))) => {
                if started.replace(hook).is_some() {
                    fail(Error::new(method.sig.ident.span(), "an actor starts once: there is another #[started]"));
                }
            }
            Ok(Some(Role::Stopped(hook))) => {
                if stopped.replace(hook).is_some() {
                    fail(Error::new(method.sig.ident.span(), "an actor stops once: there is another #[stopped]"));
                }
            }
            Err(error) => fail(error),
        }
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    if messages.is_empty() {
        return Err(Error::new(block.self_ty.span(), "an actor needs at least one method with #[message]"));
    }
    let wire_name = options.name.as_ref().map_or_else(|| actor.to_string(), syn::LitStr::value);
    let messages = make(messages, &actor, &wire_name)?;
    let parts = Parts { block: &block, actor, self_ty, options, wire_name, messages, started, stopped };
    let (structs, mailbox, handle, implementation) =
        (parts.structs(), parts.mailbox(), parts.handle(), parts.implementation());
    Ok(quote! {
        #block
        #structs
        #mailbox
        #handle
        #implementation
    })
}

fn actor_name(ty: &Type) -> Result<Ident> {
    match ty {
        Type::Path(path) if path.qself.is_none() => {
            Ok(path.path.segments.last().expect("a path has segments").ident.clone())
        }
        other => Err(Error::new(other.span(), "#[actor] needs a struct or enum")),
    }
}

/// What futures of the block may name: all its generics.
fn captures(block: &ItemImpl) -> TokenStream {
    let names = block.generics.params.iter().filter_map(|parameter| match parameter {
        GenericParam::Type(parameter) => Some(&parameter.ident),
        GenericParam::Const(parameter) => Some(&parameter.ident),
        GenericParam::Lifetime(_) => None,
    });
    quote!(#(#names),*)
}

/// The 32-bit FNV-1a hash, as `dmrpc_actors` computes it.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Gives messages their names and numbers; two of one number are an error.
fn make(messages: Vec<Message>, actor: &Ident, wire_name: &str) -> Result<Vec<Made>> {
    let mut taken: HashMap<u32, String> = HashMap::new();
    let names: Vec<String> = messages.iter().map(|message| message.wire_name.clone()).collect();
    messages
        .into_iter()
        .map(|message| {
            let name = &message.wire_name;
            if let Some(told) = name.strip_prefix("tell_").filter(|told| names.iter().any(|name| name == told)) {
                return Err(Error::new(
                    message.name.span(),
                    format!("`tell_{told}` is what tells `{told}`: choose another name for one of them"),
                ));
            }
            let (id, span) =
                message.id.unwrap_or_else(|| (fnv1a(&format!("{wire_name}::{name}")), message.name.span()));
            if let Some(other) = taken.insert(id, name.clone()) {
                return Err(Error::new(
                    span,
                    format!(
                        "`{name}` has the id {id}, as has `{other}`: give one of them another by #[message(id = ..)]"
                    ),
                ));
            }
            let variant = format_ident!("{}", pascal_case(name), span = message.name.span());
            Ok(Made { ty: format_ident!("{actor}{variant}"), variant, id, message })
        })
        .collect()
}

fn pascal_case(name: &str) -> String {
    name.split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).collect::<Vec<_>>()
        })
        .collect()
}

struct Parts<'a> {
    block: &'a ItemImpl,
    actor: Ident,
    self_ty: TokenStream,
    options: &'a Options,
    wire_name: String,
    messages: Vec<Made>,
    started: Option<Hook>,
    stopped: Option<Hook>,
}

impl Parts<'_> {
    /// What every made item is allowed.
    fn allow() -> TokenStream {
        quote! {
            #[allow(
                missing_docs, unreachable_pub, private_interfaces, private_bounds, dead_code, non_camel_case_types,
                clippy::large_enum_variant, clippy::needless_pass_by_value, clippy::unused_async
            )]
        }
    }

    fn mailbox_ty(&self) -> Ident {
        format_ident!("{}Message", self.actor)
    }

    fn handle_ty(&self) -> Ident {
        format_ident!("{}Handle", self.actor)
    }

    /// A type that mentions all generics, and owns none.
    fn phantom(&self) -> TokenStream {
        let types = self.block.generics.type_params().map(|parameter| &parameter.ident);
        quote!(::core::marker::PhantomData<fn() -> (#(#types,)*)>)
    }

    fn is_generic(&self) -> bool {
        self.block.generics.type_params().next().is_some()
    }

    fn structs(&self) -> TokenStream {
        let allow = Self::allow();
        let (self_ty, mailbox) = (&self.self_ty, self.mailbox_ty());
        let (impl_generics, ty_generics, clause) = self.block.generics.split_for_impl();
        let generics = &self.block.generics;
        let phantom = self.phantom();
        let items = self.messages.iter().map(|made| {
            let Made { message, ty, variant, id } = made;
            let (reply, name, docs) = (&message.reply, &message.wire_name, &message.docs);
            let title = format!("The arguments of [`{}::{name}`].", self.actor);
            let fields = message.arguments().map(|argument| {
                let (name, ty) = (&argument.name, &argument.ty);
                let with = (argument.is_bytes && !self.options.local)
                    .then(|| quote!(#[serde(with = "::dmrpc_actors::made::bytes_argument")]));
                quote!(#with pub #name: #ty,)
            });
            let generic_field = self.is_generic().then(|| {
                let skip = (!self.options.local).then(|| quote!(#[serde(skip)]));
                quote!(#skip #[doc(hidden)] pub generics: #phantom,)
            });
            let derive = (!self.options.local).then(|| {
                let bound = self.is_generic().then(|| quote!(#[serde(bound(serialize = "", deserialize = ""))]));
                quote! {
                    #[derive(::dmrpc_actors::made::serde::Serialize, ::dmrpc_actors::made::serde::Deserialize)]
                    #[serde(crate = "::dmrpc_actors::made::serde")]
                    #bound
                }
            });
            let codec = (!self.options.local).then(|| {
                let (encode_reply, decode_reply) = if message.reply_is_bytes {
                    (
                        quote!(output.write(&::dmrpc_actors::made::BytesAnswer(::core::clone::Clone::clone(reply)))),
                        quote!(arguments.value::<::dmrpc_actors::made::BytesAnswer>().map(|answer| answer.0)),
                    )
                } else {
                    (quote!(output.write(reply)), quote!(arguments.value()))
                };
                quote! {
                    fn encode(&self, output: &mut ::dmrpc_actors::Output<'_>) -> ::core::result::Result<(), ::dmrpc_actors::ActorError> {
                        output.write(self)
                    }
                    fn encode_reply(
                        reply: &Self::Reply,
                        output: &mut ::dmrpc_actors::Output<'_>,
                    ) -> ::core::result::Result<(), ::dmrpc_actors::ActorError> {
                        #encode_reply
                    }
                    fn decode_reply(
                        arguments: ::dmrpc_actors::Arguments<'_>,
                    ) -> ::core::result::Result<Self::Reply, ::dmrpc_actors::ActorError> {
                        #decode_reply
                    }
                }
            });
            quote! {
                #[doc = #title]
                #[doc = ""]
                #(#docs)*
                #derive
                #allow
                pub struct #ty #generics #clause {
                    #(#fields)*
                    #generic_field
                }

                #[automatically_derived]
                impl #impl_generics ::dmrpc_actors::Message<#self_ty> for #ty #ty_generics #clause {
                    type Reply = #reply;
                    const ID: u32 = #id;
                    const NAME: &'static str = #name;

                    fn into_mail(self, reply: ::dmrpc_actors::Reply<Self::Reply>) -> #mailbox #ty_generics {
                        #mailbox::#variant(self, reply)
                    }

                    #codec
                }
            }
        });
        quote!(#(#items)*)
    }

    fn mailbox(&self) -> TokenStream {
        let allow = Self::allow();
        let mailbox = self.mailbox_ty();
        let generics = &self.block.generics;
        let (impl_generics, ty_generics, clause) = generics.split_for_impl();
        let title = format!("Every message of [`{}`].", self.actor);
        let variants = self.messages.iter().map(|made| {
            let (variant, ty, reply) = (&made.variant, &made.ty, &made.message.reply);
            quote!(#variant(#ty #ty_generics, ::dmrpc_actors::Reply<#reply>),)
        });
        let names: Vec<_> = self.messages.iter().map(|made| &made.variant).collect();
        quote! {
            #[doc = #title]
            #allow
            pub enum #mailbox #generics #clause {
                #(#variants)*
            }

            #[automatically_derived]
            impl #impl_generics ::dmrpc_actors::Mail for #mailbox #ty_generics #clause {
                fn fail(self, error: ::dmrpc_actors::ActorError) {
                    match self {
                        #(Self::#names(_, reply) => reply.fail(error),)*
                    }
                }

                fn is_abandoned(&self) -> bool {
                    match self {
                        #(Self::#names(_, reply) => reply.is_abandoned(),)*
                    }
                }

                fn is_ask(&self) -> bool {
                    match self {
                        #(Self::#names(_, reply) => reply.is_awaited(),)*
                    }
                }
            }
        }
    }

    fn handle(&self) -> TokenStream {
        let allow = Self::allow();
        let (handle, self_ty) = (self.handle_ty(), &self.self_ty);
        let generics = &self.block.generics;
        let (impl_generics, ty_generics, clause) = generics.split_for_impl();
        let title = format!("The methods of [`{}`], as an `ActorRef` to it has them.", self.actor);
        let methods = self.messages.iter().map(|made| {
            let Made { message, ty, .. } = made;
            let (name, docs) = (&message.name, &message.docs);
            let tell = format_ident!("tell_{}", message.wire_name, span = message.name.span());
            let tell_title = format!("As [`{}`](Self::{0}), without an answer.", message.wire_name);
            let names: Vec<_> = message.arguments().map(|argument| &argument.name).collect();
            let types: Vec<_> = message.arguments().map(|argument| &argument.ty).collect();
            let generic_field = self.is_generic().then(|| quote!(generics: ::core::marker::PhantomData,));
            quote! {
                #(#docs)*
                pub fn #name(&self, #(#names: #types),*) -> ::dmrpc_actors::Ask<'_, #self_ty, #ty #ty_generics> {
                    self.0.ask(#ty { #(#names,)* #generic_field })
                }

                #[doc = #tell_title]
                pub fn #tell(&self, #(#names: #types),*) -> ::dmrpc_actors::Tell<'_, #self_ty, #ty #ty_generics> {
                    self.0.tell(#ty { #(#names,)* #generic_field })
                }
            }
        });
        quote! {
            #[doc = #title]
            #allow
            pub struct #handle #generics (::dmrpc_actors::Recipient<#self_ty>) #clause;

            #[automatically_derived]
            impl #impl_generics ::core::clone::Clone for #handle #ty_generics #clause {
                fn clone(&self) -> Self {
                    Self(::core::clone::Clone::clone(&self.0))
                }
            }

            #[automatically_derived]
            impl #impl_generics ::dmrpc_actors::Handle<#self_ty> for #handle #ty_generics #clause {
                fn new(recipient: ::dmrpc_actors::Recipient<#self_ty>) -> Self {
                    Self(recipient)
                }

                fn recipient(&self) -> &::dmrpc_actors::Recipient<#self_ty> {
                    &self.0
                }
            }

            #allow
            impl #impl_generics #handle #ty_generics #clause {
                #(#methods)*
            }
        }
    }

    fn implementation(&self) -> TokenStream {
        let allow = Self::allow();
        let (mailbox, handle, self_ty, wire_name) =
            (self.mailbox_ty(), self.handle_ty(), &self.self_ty, &self.wire_name);
        let (impl_generics, ty_generics, clause) = self.block.generics.split_for_impl();
        let arms = self.messages.iter().map(|made| {
            let Made { message, ty, variant, .. } = made;
            let method = &message.name;
            let fields = message.arguments().map(|argument| &argument.name);
            let parameters = message.parameters.iter().map(|parameter| match parameter {
                Parameter::Context => quote!(context),
                Parameter::Argument(argument) => argument.name.to_token_stream(),
            });
            let call = quote!(Self::#method(self, #(#parameters),*));
            let answer = match message.call {
                Call::Plain => quote!({
                    let answer = #call;
                    reply.send(answer);
                }),
                Call::Async => quote!({
                    let answer = #call.await;
                    reply.send(answer);
                }),
                Call::Detached => quote!({
                    let answer = #call;
                    context.detach(reply, answer);
                }),
            };
            quote!(#mailbox::#variant(#ty { #(#fields,)* .. }, reply) => #answer)
        });
        let hook = |hook: &Option<Hook>, signature: TokenStream| {
            hook.as_ref().map(|hook| {
                let name = &hook.name;
                let parameters = hook.parameters.iter().map(|parameter| match parameter {
                    HookParameter::Exit => quote!(exit),
                    HookParameter::Context => quote!(context),
                });
                let wait = hook.is_async.then(|| quote!(.await));
                quote! {
                    #allow
                    async fn #signature {
                        Self::#name(self, #(#parameters),*)#wait;
                    }
                }
            })
        };
        let context = quote!(context: &mut ::dmrpc_actors::Context<Self>);
        let started = hook(&self.started, quote!(started(&mut self, #context)));
        let stopped = hook(&self.stopped, quote!(stopped(&mut self, exit: &::dmrpc_actors::Exit, #context)));
        let decode = (!self.options.local).then(|| {
            let ids: Vec<_> = self.messages.iter().map(|made| made.id).collect();
            let types = self.messages.iter().map(|made| &made.ty);
            let names = self.messages.iter().map(|made| &made.message.wire_name);
            quote! {
                fn decode(
                    arguments: ::dmrpc_actors::Arguments<'_>,
                ) -> ::core::result::Result<Self::Message, ::dmrpc_actors::ActorError> {
                    let id = match arguments.method() {
                        ::dmrpc_actors::Method::Id(id) => id,
                        ::dmrpc_actors::Method::Name(name) => match name {
                            #(#names => #ids,)*
                            _ => return ::core::result::Result::Err(arguments.unknown()),
                        },
                    };
                    match id {
                        #(#ids => arguments.read::<Self, #types #ty_generics>(),)*
                        _ => ::core::result::Result::Err(arguments.unknown()),
                    }
                }
            }
        });
        quote! {
            #[automatically_derived]
            impl #impl_generics ::dmrpc_actors::Actor for #self_ty #clause {
                type Message = #mailbox #ty_generics;
                type Handle = #handle #ty_generics;
                const TYPE: &'static str = #wire_name;

                #allow
                async fn handle(&mut self, message: Self::Message, #context) {
                    match message {
                        #(#arms)*
                    }
                }

                #started
                #stopped
                #decode
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the attribute says to `block`; empty if it is content.
    fn check(options: &str, block: &str, expected: &[&str]) {
        let said = match syn::parse_str::<Options>(options) {
            Err(error) => vec![error.to_string()],
            Ok(options) => match expand(&options, syn::parse_str(block).expect("Rust")) {
                Ok(made) => {
                    syn::parse2::<syn::File>(made).expect("what is made is Rust");
                    vec![]
                }
                Err(errors) => errors.into_iter().map(|error| error.to_string()).collect(),
            },
        };
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said:?}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        check("", "impl A { #[message] fn f(&mut self, name: &str) {} }", &["take an owned type"]);
        check("", "impl A { #[message] fn f(&mut self, x: impl Copy) {} }", &["type that can be named"]);
        check("", "impl A { #[message] fn f(&mut self, (a, b): (u8, u8)) {} }", &["an argument needs a name"]);
        check("", "impl A { #[message] fn f(&mut self) -> &u8 {} }", &["return an owned type"]);
        check("", "impl A { #[message] fn f(&mut self) -> impl Future<Output = u8> {} }", &["#[message(detached)]"]);
        check("", "impl A { #[message(detached)] async fn f(&mut self) -> u8 {} }", &["is no `async fn`"]);
        check("", "impl A { #[message(detached)] fn f(&mut self) -> u8 {} }", &["returns `impl Future"]);
        check("", "impl A { #[message] fn stop(&mut self) {} }", &["is a method of ActorRef itself"]);
        check("", "impl A { #[message] fn f(&mut self) {} #[message] fn tell_f(&mut self) {} }", &["what tells `f`"]);
        check("", "impl A { #[message(id = 0)] fn f(&mut self) {} }", &["0 is no id"]);
        check("", "impl A { #[message(idd = 1)] fn f(&mut self) {} }", &["expected `id = NUMBER` or `detached`"]);
        check("", "impl A { fn f(&mut self) {} }", &["at least one method with #[message]"]);
        check("", "impl T for A { #[message] fn f(&mut self) {} }", &["not on that of a trait"]);
        check("", "impl<'a> A<'a> { #[message] fn f(&mut self) {} }", &["it can't borrow"]);
        check("", "impl A { #[message] #[started] fn f(&mut self) {} }", &["is one of"]);
        check("", "impl A { #[started] fn f(&mut self, n: u8) {} }", &["expected `&mut Context<Self>`"]);
        check("loca", "impl A { #[message] fn f(&mut self) {} }", &["expected `local` or `name"]);
    }

    #[test]
    fn all_mistakes_of_a_block_are_told_at_once() {
        let block =
            "impl A { #[message] fn make() {} #[message] fn take(self) {} #[message] fn any<T>(&mut self, t: T) {} }";
        check("", block, &["takes `&mut self`", "takes `&mut self`", "can't be generic"]);
    }

    #[test]
    fn two_messages_of_one_id_are_refused() {
        check(
            "",
            "impl A { #[message(id = 4)] fn f(&mut self) {} #[message(id = 4)] fn g(&mut self) {} }",
            &["as has `f`"],
        );
        // The hash of A::f, taken by hand.
        let id = fnv1a("A::f");
        let block = format!("impl A {{ #[message] fn f(&mut self) {{}} #[message(id = {id})] fn g(&mut self) {{}} }}");
        check("", &block, &["as has `f`"]);
        check("name = \"B\"", &block, &[]);
    }

    /// The numbers stand on links: a change of the hash is a change of the protocol.
    #[test]
    fn ids_are_fnv1a() {
        assert_eq!((fnv1a(""), fnv1a("a"), fnv1a("foobar")), (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968));
    }

    #[test]
    fn what_is_right_is_accepted() {
        check(
            "",
            "impl<T: Clone, const N: usize> A<T, N> where T: Send {
                #[message] async fn f(&mut self, mut a: T, cx: &mut Context<Self>) -> Result<Self, T> {}
                #[message(id = 3)] fn g(&self, b: bytes::Bytes) -> Bytes {}
                #[message(detached)] fn h(&mut self, r#type: u8) -> impl Future<Output = Option<T>> {}
                #[started] async fn begin(&mut self) {}
                #[stopped] fn end(&mut self, exit: &Exit, cx: &mut Context<Self>) {}
                const X: u8 = 1;
            }",
            &[],
        );
        check("local, name = \"Other\"", "impl a::B { #[message] fn f(&mut self) {} }", &[]);
    }
}
