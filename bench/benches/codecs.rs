//! What it costs to turn messages between actors into bytes and back, by codec: the figures of
//! `docs/decisions/user-messages.md`.
//!
//! `cargo bench -p dmrpc-bench --bench codecs` prints the size of each encoding, then times each way. Encoders write into a
//! buffer that is used again, as links do; decoders make owned values, as handlers get them.

#![expect(clippy::print_stdout, reason = "sizes are figures, too")]

use criterion::{Criterion, criterion_group, criterion_main};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::hint::black_box;

/// The request of a pipeline's tier: what most messages look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Request {
    id: u64,
    deadline_ms: u32,
    name: String,
    width: u32,
    height: u32,
    quality: Option<u8>,
    format: Format,
    /// Where the table of refs beside the payload has the image.
    image: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Format {
    Jpeg,
    Png { level: u8 },
}

/// A batch of records: strings, numbers, and a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Batch {
    records: Vec<Request>,
    labels: std::collections::BTreeMap<String, f64>,
}

/// A tensor that somebody sends by value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tensor {
    shape: Vec<u32>,
    values: Vec<f32>,
}

/// Bytes that somebody sends by value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Blob {
    name: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

fn request(id: u64) -> Request {
    Request {
        id: 0x5eed_0000 + id,
        deadline_ms: 1500,
        name: format!("photos/harbour-{id:04}.jpg"),
        width: 1920,
        height: 1080,
        quality: Some(85),
        format: if id.is_multiple_of(3) { Format::Png { level: 6 } } else { Format::Jpeg },
        image: id as u32,
    }
}

/// Encodes into an emptied buffer.
type Encode<T> = fn(&T, &mut Vec<u8>);
/// Decodes an owned value.
type Decode<T> = fn(&[u8]) -> T;

fn codecs<T: Serialize + DeserializeOwned>() -> [(&'static str, Encode<T>, Decode<T>); 5] {
    [
        (
            "postcard",
            |value, out| {
                *out = postcard::to_extend(value, std::mem::take(out)).expect("encodes");
            },
            |bytes| postcard::from_bytes(bytes).expect("decodes"),
        ),
        (
            "rmp-serde, by place",
            |value, out| rmp_serde::encode::write(out, value).expect("encodes"),
            |bytes| rmp_serde::from_slice(bytes).expect("decodes"),
        ),
        (
            "rmp-serde, by name",
            |value, out| rmp_serde::encode::write_named(out, value).expect("encodes"),
            |bytes| rmp_serde::from_slice(bytes).expect("decodes"),
        ),
        (
            "bitcode",
            |value, out| out.extend_from_slice(&bitcode::serialize(value).expect("encodes")),
            |bytes| bitcode::deserialize(bytes).expect("decodes"),
        ),
        (
            "serde_json",
            |value, out| serde_json::to_writer(out, value).expect("encodes"),
            |bytes| serde_json::from_slice(bytes).expect("decodes"),
        ),
    ]
}

fn compare<T: Serialize + DeserializeOwned + PartialEq>(c: &mut Criterion, what: &str, value: &T) {
    let mut group = c.benchmark_group(what);
    for (name, encode, decode) in codecs::<T>() {
        let mut bytes = Vec::new();
        encode(value, &mut bytes);
        assert!(&decode(&bytes) == value, "{name} loses something");
        println!("{what}/{name}: {} bytes", bytes.len());
        let mut out = Vec::new();
        group.bench_function(format!("{name}/encode"), |b| {
            b.iter(|| {
                out.clear();
                encode(black_box(value), &mut out);
                black_box(&out);
            });
        });
        group.bench_function(format!("{name}/decode"), |b| b.iter(|| decode(black_box(&bytes))));
    }
    group.finish();
}

fn all(c: &mut Criterion) {
    compare(c, "request", &request(1));
    let labels = (0..16).map(|n| (format!("label {n}"), f64::from(n) * 0.25)).collect();
    compare(c, "batch of 64 requests", &Batch { records: (0..64).map(request).collect(), labels });
    let values = (0..4096).map(|n| (n as f32).sin()).collect();
    compare(c, "tensor of 4096 f32", &Tensor { shape: vec![64, 64], values });
    let bytes = (0..65_536u32).map(|n| ((n * 31) >> 3) as u8).collect();
    compare(c, "blob of 64 KiB", &Blob { name: "harbour".into(), bytes });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(700));
    targets = all
}
criterion_main!(benches);
