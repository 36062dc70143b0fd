//! What this process has references to in the object store: which object, how large, and where in the program it came to be.
//! For people who look for what holds their memory.
//!
//! 1. Making and dropping an entry, and listing them, waits for nobody and calls nothing of Python's.

use crate::client::SessionNumber;
use crate::site::Site;
use crate::stored::Identity;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Rows of a list at most: the largest.
const MAX_ROWS: usize = 1000;
/// Bytes of the name of a file in a list; of a longer one the end is shown.
const MAX_SITE_BYTES: usize = 200;

static TABLE: Mutex<Table> = Mutex::new(Table { rows: Vec::new(), free: Vec::new() });

struct Table {
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
}

/// A reference.
#[derive(Clone, Copy)]
struct Row {
    object: Identity,
    bytes: u64,
    kind: &'static str,
    site: Option<Site>,
    session: SessionNumber,
}

/// An entry of the table, for as long as it lives.
pub(crate) struct Held(u32);

impl Held {
    /// Notes a reference.
    pub(crate) fn new(object: Identity, bytes: u64, kind: &'static str, site: Option<Site>) -> Self {
        let row = Some(Row { object, bytes, kind, site, session: SessionNumber::current() });
        let mut table = TABLE.lock();
        match table.free.pop() {
            Some(place) => {
                table.rows[place as usize] = row;
                Self(place)
            }
            None => {
                table.rows.push(row);
                // 2³² rows do not fit into memory.
                Self((table.rows.len() - 1) as u32)
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = TABLE.lock();
        table.rows[self.0 as usize] = None;
        table.free.push(self.0);
    }
}

/// All that is held in the session that runs: how many references, of how many bytes together, and the largest of them as
/// `[object, bytes, kind, site]`.
pub(crate) fn list() -> Value {
    let session = SessionNumber::current();
    let (mut count, mut bytes) = (0_u64, 0_u64);
    let mut largest: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::with_capacity(MAX_ROWS + 1);
    let rows: Vec<Row> = {
        let table = TABLE.lock();
        let living = table.rows.iter().enumerate().filter_map(|(place, row)| Some((place, (*row)?)));
        for (place, row) in living.filter(|(_, row)| row.session == session) {
            count += 1;
            bytes = bytes.saturating_add(row.bytes);
            largest.push(Reverse((row.bytes, place)));
            if largest.len() > MAX_ROWS {
                largest.pop();
            }
        }
        largest.into_sorted_vec().into_iter().filter_map(|Reverse((_, place))| table.rows[place]).collect()
    };
    let rows: Vec<Value> =
        rows.iter().map(|row| json!([row.object.to_string(), row.bytes, row.kind, site(row.site)])).collect();
    json!({"count": count, "bytes": bytes, "rows": rows})
}

fn site(site: Option<Site>) -> Option<String> {
    let text = site?.text();
    let start = (text.len().saturating_sub(MAX_SITE_BYTES)..).find(|&at| text.is_char_boundary(at));
    Some(text[start.unwrap_or(0)..].to_owned())
}
