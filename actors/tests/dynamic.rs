//! Calls by name, in MessagePack, as other languages make them.

use dmrpc_actors::{ActorError, DynamicRef, System, actor};
use dmrpc_objstore::{AnyRef, Encoded, ObjectRef, REF_EXTENSION, block_on};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i32,
    y: f64,
    label: Option<String>,
}

struct Canvas(Vec<Point>);

#[actor]
impl Canvas {
    #[message]
    fn draw(&mut self, point: Point, times: u32) -> Vec<Point> {
        self.0.extend((0..times).map(|_| point.clone()));
        self.0.clone()
    }

    #[message]
    fn clear(&mut self) {
        self.0.clear();
    }

    #[message]
    fn paste(&mut self, image: bytes::Bytes, mask: Option<ObjectRef>, name: String) -> (u64, Option<ObjectRef>) {
        let name_len = name.len() as u64;
        (image.len() as u64 + name_len + mask.as_ref().map_or(0, ObjectRef::byte_len), mask)
    }

    #[message]
    fn typed(&mut self, point: ObjectRef<Encoded<Point>>) -> u64 {
        point.byte_len()
    }
}

struct Rig {
    _runtime: tokio::runtime::Runtime,
    _server: System,
    canvas: DynamicRef,
    _directory: tempfile::TempDir,
}

/// Everything on this side happens on a plain thread.
fn rig() -> Rig {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let address = format!("unix://{}/s", directory.path().display());
    let server = block_on(System::builder().runtime(runtime.handle().clone()).listen(&address).build());
    let server = server.expect("listens");
    server.register("canvas", &server.spawn(Canvas(vec![]))).expect("free");
    let client = block_on(System::builder().runtime(runtime.handle().clone()).build()).expect("no address");
    let canvas = block_on(client.connect_dynamic(&format!("{address}#canvas"))).expect("connects");
    Rig { _runtime: runtime, _server: server, canvas, _directory: directory }
}

impl Rig {
    fn call<R: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        arguments: &impl Serialize,
        refs: Vec<AnyRef>,
    ) -> Result<(R, Vec<AnyRef>), ActorError> {
        let arguments = rmp_serde::to_vec(arguments).expect("serializes");
        let answer = block_on(self.canvas.call(method, arguments, refs, None))?;
        Ok((rmp_serde::from_slice(&answer.value).expect("decodes"), answer.refs))
    }
}

/// A reference as another language writes it: an extension.
fn extension(place: u32) -> rmp_ext::Ext {
    rmp_ext::Ext::new(REF_EXTENSION, place.to_le_bytes().to_vec())
}

mod rmp_ext {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename = "_ExtStruct")]
    pub struct Ext((i8, serde_bytes_vec::Bytes));

    impl Ext {
        pub fn new(kind: i8, bytes: Vec<u8>) -> Self {
            Self((kind, serde_bytes_vec::Bytes(bytes)))
        }
    }

    mod serde_bytes_vec {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Debug, PartialEq)]
        pub struct Bytes(pub Vec<u8>);

        impl Serialize for Bytes {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for Bytes {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Take;
                impl serde::de::Visitor<'_> for Take {
                    type Value = Bytes;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("bytes")
                    }
                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                        Ok(Bytes(bytes.to_vec()))
                    }
                }
                deserializer.deserialize_bytes(Take)
            }
        }
    }
}

#[test]
fn arguments_are_an_array_and_structs_are_maps() {
    let rig = rig();
    let point = Point { x: -3, y: 0.5, label: Some("here".into()) };
    // Structs within arguments may be arrays, as Rust writes them, or maps, as others do.
    let (drawn, _) = rig.call::<Vec<Point>>("draw", &(&point, 2), vec![]).expect("answered");
    assert_eq!(drawn, vec![point.clone(); 2]);
    let map = std::collections::BTreeMap::from([("label", "here")]);
    let numbers = (map, 1);
    let wrong = rig.call::<Vec<Point>>("draw", &numbers, vec![]);
    assert!(matches!(&wrong, Err(ActorError::Malformed(text)) if text.contains('x')), "{wrong:?}");
    let arguments = rmp_serde::to_vec(&("unused",)).expect("serializes");
    assert!(!arguments.is_empty());
    let named = rmp_serde::to_vec_named(&point).expect("serializes");
    let mut arguments = vec![0x92];
    arguments.extend_from_slice(&named);
    arguments.push(1);
    let answer = block_on(rig.canvas.call("draw", arguments, vec![], None)).expect("answered");
    // Answers have their structs as maps.
    let maps: Vec<std::collections::BTreeMap<String, Mixed>> = rmp_serde::from_slice(&answer.value).expect("maps");
    assert_eq!((maps.len(), &maps[2]["x"]), (3, &Mixed::Number(-3.0)));
    // No arguments are an empty array; no answer is nil.
    let ((), _) = rig.call("clear", &[0_u8; 0], vec![]).expect("answered");
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Mixed {
    Number(f64),
    Text(Option<String>),
}

#[test]
fn references_are_extensions_with_their_place() {
    let rig = rig();
    let mask = ObjectRef::inline(b"mask").into_any();
    let other = ObjectRef::inline(b"others").into_any();
    let image = serde_bytes(&[7; 10_000]);
    let arguments = (image, extension(1), "name");
    let ((sum, back), refs) =
        rig.call::<(u64, rmp_ext::Ext)>("paste", &arguments, vec![mask, other]).expect("answered");
    assert_eq!((sum, back, refs.len()), (10_010, extension(0), 1));
    assert_eq!(&block_on(refs[0].get()).expect("inline")[..], b"others");
    // A place that there is not, another extension, a reference to something else.
    for argument in [extension(5), rmp_ext::Ext::new(9, vec![0; 4]), rmp_ext::Ext::new(REF_EXTENSION, vec![0; 3])] {
        let refs = vec![ObjectRef::inline(b"x").into_any()];
        let wrong = rig.call::<(u64, Option<rmp_ext::Ext>)>("paste", &(serde_bytes(b""), argument, ""), refs);
        assert!(matches!(wrong, Err(ActorError::Malformed(_))), "{wrong:?}");
    }
    let wrong = rig.call::<u64>("typed", &(extension(0),), vec![ObjectRef::inline(b"x").into_any()]);
    assert!(matches!(&wrong, Err(ActorError::Malformed(text)) if text.contains("codec")), "{wrong:?}");
}

/// Bytes and not an array of numbers.
fn serde_bytes(bytes: &[u8]) -> impl Serialize + '_ {
    struct Bytes<'a>(&'a [u8]);
    impl Serialize for Bytes<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
    Bytes(bytes)
}

#[test]
fn mistakes_are_typed_errors_and_the_link_goes_on() {
    let rig = rig();
    let unknown = rig.call::<()>("erase", &(1,), vec![]);
    assert_eq!(unknown.map(drop), Err(ActorError::UnknownMessage("erase".into())));
    let nameless = rig.call::<()>("", &(1,), vec![]);
    assert!(matches!(nameless, Err(ActorError::UnknownMessage(_))));
    let too_long = rig.call::<()>(&"x".repeat(300), &(1,), vec![]);
    assert!(matches!(too_long, Err(ActorError::UnknownMessage(_))));
    let missing = rig.call::<()>("draw", &[0_u8; 0], vec![]);
    assert!(matches!(missing, Err(ActorError::Malformed(_))), "{missing:?}");
    let (drawn, _) =
        rig.call::<Vec<Point>>("draw", &(Point { x: 1, y: 1.0, label: None }, 1), vec![]).expect("answered");
    assert_eq!(drawn.len(), 1);
}

#[test]
fn a_tell_by_name_is_handled() {
    let rig = rig();
    let arguments = rmp_serde::to_vec(&(Point { x: 1, y: 1.0, label: None }, 4)).expect("serializes");
    block_on(rig.canvas.tell("draw", arguments, vec![], None)).expect("sent");
    let (drawn, _) =
        rig.call::<Vec<Point>>("draw", &(Point { x: 1, y: 1.0, label: None }, 0), vec![]).expect("answered");
    assert_eq!(drawn.len(), 4);
}
