//! One method of the `impl` block, as `#[message]`, `#[started]` or `#[stopped]` mark it.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, ImplItemFn, Pat, Result, ReturnType, Type, TypeParamBound};

/// What a method is to the actor.
pub(crate) enum Role {
    Message(Message),
    Started(Hook),
    Stopped(Hook),
}

pub(crate) struct Message {
    pub(crate) name: Ident,
    /// The name in messages: without `r#`.
    pub(crate) wire_name: String,
    pub(crate) id: Option<(u32, Span)>,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) reply: TokenStream,
    pub(crate) reply_is_bytes: bool,
    pub(crate) call: Call,
}

/// How the method's answer comes about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Plain,
    Async,
    Detached,
}

pub(crate) enum Parameter {
    Context,
    Argument(Argument),
}

pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) ty: TokenStream,
    pub(crate) is_bytes: bool,
}

pub(crate) struct Hook {
    pub(crate) name: Ident,
    pub(crate) is_async: bool,
    pub(crate) parameters: Vec<HookParameter>,
}

pub(crate) enum HookParameter {
    Exit,
    Context,
}

/// Methods of `ActorRef` itself, which would hide a message's.
const RESERVED: [&str; 11] =
    ["ask", "tell", "is_local", "stop", "drain", "ended", "waiting", "dropped", "clone", "deref", "fmt"];

impl Message {
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Argument> {
        self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Argument(argument) => Some(argument),
            Parameter::Context => None,
        })
    }
}

/// Reads a method and takes our attributes off it. `captures` is what a detached future may name: the generics of the block.
pub(crate) fn read(method: &mut ImplItemFn, self_ty: &TokenStream, captures: &TokenStream) -> Result<Option<Role>> {
    let mut role = None;
    let mut error: Option<Error> = None;
    let mut kept = Vec::new();
    for attribute in std::mem::take(&mut method.attrs) {
        let path = attribute.path();
        let is_ours = ["message", "started", "stopped"].into_iter().find(|name| path.is_ident(name));
        let Some(ours) = is_ours else {
            kept.push(attribute);
            continue;
        };
        if role.replace((ours, attribute.clone())).is_some() {
            let twice = Error::new(attribute.span(), "a method is one of #[message], #[started], #[stopped], once");
            error.get_or_insert(twice);
        }
    }
    method.attrs = kept;
    if let Some(error) = error {
        return Err(error);
    }
    let Some((role, attribute)) = role else { return Ok(None) };
    if !method.sig.generics.params.is_empty() {
        return Err(Error::new(
            method.sig.generics.span(),
            "a message's method can't be generic: one message type is one method; make the actor generic instead",
        ));
    }
    check_receiver(method)?;
    match role {
        "message" => message(method, &attribute, self_ty, captures).map(Role::Message).map(Some),
        "started" => hook(method, &attribute).map(Role::Started).map(Some),
        _ => hook(method, &attribute).map(Role::Stopped).map(Some),
    }
}

fn check_receiver(method: &ImplItemFn) -> Result<()> {
    match method.sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() && receiver.colon_token.is_none() => Ok(()),
        other => Err(Error::new(
            other.map_or_else(|| method.sig.ident.span(), Spanned::span),
            "a handler takes `&mut self` (or `&self`): the actor stays, its messages come and go",
        )),
    }
}

fn message(
    method: &mut ImplItemFn,
    attribute: &Attribute,
    self_ty: &TokenStream,
    captures: &TokenStream,
) -> Result<Message> {
    let mut id = None;
    let mut detached = false;
    if !matches!(attribute.meta, syn::Meta::Path(_)) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("id") {
                let number: syn::LitInt = meta.value()?.parse()?;
                let value: u32 = number.base10_parse()?;
                if value == 0 {
                    return Err(Error::new(number.span(), "0 is no id: it stands for \"by name\" on links"));
                }
                id = Some((value, number.span()));
                Ok(())
            } else if meta.path.is_ident("detached") {
                detached = true;
                Ok(())
            } else {
                Err(meta.error("expected `id = NUMBER` or `detached`"))
            }
        })?;
    }
    let name = method.sig.ident.clone();
    let wire_name = name.to_string().trim_start_matches("r#").to_owned();
    if RESERVED.contains(&wire_name.as_str()) {
        return Err(Error::new(
            name.span(),
            format!("`{wire_name}` is a method of ActorRef itself, which would hide this one: choose another name"),
        ));
    }
    let mut parameters = Vec::new();
    let mut has_context = false;
    for input in method.sig.inputs.iter().skip(1) {
        let FnArg::Typed(typed) = input else { continue };
        if is_context(&typed.ty) {
            if std::mem::replace(&mut has_context, true) {
                return Err(Error::new(typed.span(), "one `&mut Context<Self>` is enough"));
            }
            parameters.push(Parameter::Context);
            continue;
        }
        let Pat::Ident(pattern) = &*typed.pat else {
            return Err(Error::new(typed.pat.span(), "an argument needs a name: it is a field of the message"));
        };
        match &*typed.ty {
            Type::Reference(reference) => {
                return Err(Error::new(
                    reference.span(),
                    "arguments are moved to the actor: take an owned type, or an ObjectRef for what is large",
                ));
            }
            Type::ImplTrait(ty) => {
                return Err(Error::new(
                    ty.span(),
                    "an argument needs a type that can be named: it is a field of the message",
                ));
            }
            ty => parameters.push(Parameter::Argument(Argument {
                name: pattern.ident.clone(),
                ty: replace_self(ty.to_token_stream(), self_ty),
                is_bytes: is_bytes(ty),
            })),
        }
    }
    let (reply, reply_is_bytes, call) = if detached {
        let output = detached_output(method, captures)?;
        (replace_self(output.to_token_stream(), self_ty), is_bytes(&output), Call::Detached)
    } else {
        let (reply, bytes) = match &method.sig.output {
            ReturnType::Default => (quote!(()), false),
            ReturnType::Type(_, ty) => match &**ty {
                Type::ImplTrait(ty) => {
                    return Err(Error::new(
                        ty.span(),
                        "an answer needs a type that can be named; for a future that runs beside the actor say #[message(detached)]",
                    ));
                }
                Type::Reference(reference) => {
                    return Err(Error::new(reference.span(), "an answer leaves the actor: return an owned type"));
                }
                ty => (replace_self(ty.to_token_stream(), self_ty), is_bytes(ty)),
            },
        };
        let call = if method.sig.asyncness.is_some() { Call::Async } else { Call::Plain };
        (reply, bytes, call)
    };
    let docs = method.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect();
    Ok(Message { name, wire_name, id, docs, parameters, reply, reply_is_bytes, call })
}

/// What a detached handler's future gives. The future is made to capture nothing of the actor.
fn detached_output(method: &mut ImplItemFn, captures: &TokenStream) -> Result<Type> {
    const EXPECTED: &str = "a detached handler is no `async fn`: it returns `impl Future<Output = ..>`, which must not borrow from the actor";
    let span = method.sig.output.span();
    if method.sig.asyncness.is_some() {
        return Err(Error::new(method.sig.asyncness.span(), EXPECTED));
    }
    let ReturnType::Type(_, ty) = &mut method.sig.output else {
        return Err(Error::new(method.sig.ident.span(), EXPECTED));
    };
    let Type::ImplTrait(future) = &mut **ty else { return Err(Error::new(span, EXPECTED)) };
    let output = future.bounds.iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => {
            let last = bound.path.segments.last()?;
            let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            arguments.args.iter().find_map(|argument| match argument {
                syn::GenericArgument::AssocType(assoc) if assoc.ident == "Output" => Some(assoc.ty.clone()),
                _ => None,
            })
        }
        _ => None,
    });
    let output = output.ok_or_else(|| Error::new(span, EXPECTED))?;
    if !future.bounds.iter().any(|bound| matches!(bound, TypeParamBound::PreciseCapture(_))) {
        future.bounds.push(syn::parse2(quote!(::core::marker::Send))?);
        future.bounds.push(syn::parse2(quote!('static))?);
        future.bounds.push(syn::parse2(quote!(use<#captures>))?);
    }
    Ok(output)
}

fn hook(method: &ImplItemFn, attribute: &Attribute) -> Result<Hook> {
    attribute.meta.require_path_only()?;
    let mut parameters = Vec::new();
    for input in method.sig.inputs.iter().skip(1) {
        let FnArg::Typed(typed) = input else { continue };
        if is_context(&typed.ty) {
            parameters.push(HookParameter::Context);
        } else if attribute.path().is_ident("stopped") && matches!(&*typed.ty, Type::Reference(_)) {
            parameters.push(HookParameter::Exit);
        } else {
            let expected = if attribute.path().is_ident("stopped") {
                "expected `&Exit` or `&mut Context<Self>`"
            } else {
                "expected `&mut Context<Self>`"
            };
            return Err(Error::new(typed.span(), expected));
        }
    }
    if let ReturnType::Type(_, ty) = &method.sig.output {
        return Err(Error::new(ty.span(), "a hook returns nothing"));
    }
    Ok(Hook { name: method.sig.ident.clone(), is_async: method.sig.asyncness.is_some(), parameters })
}

fn is_context(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_some() && last_segment(&reference.elem).is_some_and(|segment| segment.ident == "Context"))
}

fn is_bytes(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == "Bytes" && segment.arguments.is_none())
}

fn last_segment(ty: &Type) -> Option<&syn::PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

/// `Self` means nothing in the types that are made: the actor is named there.
fn replace_self(tokens: TokenStream, self_ty: &TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .flat_map(|tree| match tree {
            TokenTree::Ident(ident) if ident == "Self" => self_ty.clone(),
            TokenTree::Group(group) => {
                let mut replaced = Group::new(group.delimiter(), replace_self(group.stream(), self_ty));
                replaced.set_span(group.span());
                TokenTree::Group(replaced).into()
            }
            other => other.into(),
        })
        .collect()
}
