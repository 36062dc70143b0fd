//! What programs count: numbers that processes add to or set, under names that are the programs' affair.
//!
//! 1. There are never more than [`MAX_TALLIES`] of them, none of more than [`MAX_NUMBERS`] numbers: what is beyond is not kept.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

const MAX_TALLIES: usize = 100_000;
const MAX_NUMBERS: usize = 1000;
const MAX_NAME_BYTES: usize = 8 * 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Tallies(BTreeMap<String, Vec<f64>>);

impl Tallies {
    /// Adds to each that is named, number by number; those that are new begin with zeros.
    pub(crate) fn add(&mut self, changes: &Map<String, Value>) {
        self.change(changes, |number, by| number + by);
    }

    /// Sets each that is named.
    pub(crate) fn set(&mut self, changes: &Map<String, Value>) {
        self.change(changes, |_, to| to);
    }

    fn change(&mut self, changes: &Map<String, Value>, apply: impl Fn(f64, f64) -> f64) {
        for (name, numbers) in changes {
            let Some(numbers) = parse(numbers) else { continue };
            let full = self.0.len() >= MAX_TALLIES;
            match self.0.get_mut(name) {
                Some(known) if known.len() == numbers.len() => {
                    for (number, by) in known.iter_mut().zip(numbers) {
                        *number = apply(*number, by);
                    }
                }
                None if !full && name.len() <= MAX_NAME_BYTES => {
                    self.0.insert(name.clone(), numbers);
                }
                _ => {}
            }
        }
    }

    /// All of them, as they came.
    pub(crate) fn rows(&self) -> Value {
        let text = |numbers: &Vec<f64>| numbers.iter().map(|number| Value::from(number.to_string())).collect();
        Value::Object(self.0.iter().map(|(name, numbers)| (name.clone(), text(numbers))).collect())
    }
}

/// Numbers travel as text: JSON has neither infinities nor NaN.
fn parse(numbers: &Value) -> Option<Vec<f64>> {
    let numbers = numbers.as_array().filter(|numbers| numbers.len() <= MAX_NUMBERS)?;
    numbers.iter().map(|number| number.as_str()?.parse().ok()).collect()
}
