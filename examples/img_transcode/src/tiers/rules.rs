//! What the firewall lets through. Pure: requests and the time come in, refusals go out.
//!
//! 1. A request passes only if its client is in a network that is served, asks no more often than it may, and sends what its
//!    header says, of a type and size that the service takes.
//! 2. However many clients there are, no more than [`MAX_CLIENTS`] are remembered.

use crate::header::{Header, Kind, Refusal, Work};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;

/// How many clients' rates are remembered; beyond that those are forgotten that have all their allowance again.
pub(crate) const MAX_CLIENTS: usize = 4096;

/// What is let through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Networks that are served: an address, and how many of its leading bits count.
    pub(crate) networks: Vec<(Ipv4Addr, u8)>,
    /// The most bytes of an image.
    pub(crate) max_bytes: u64,
    /// The most pixels of an image.
    pub(crate) max_pixels: u64,
    /// How many requests a client may make in a second, and at once.
    pub(crate) per_second: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            networks: vec![(Ipv4Addr::new(10, 0, 0, 0), 8)],
            max_bytes: 128 << 20,
            max_pixels: 100_000_000,
            per_second: 1_000_000,
        }
    }
}

/// A client's allowance: a bucket of tokens that fills steadily.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    tokens: f64,
    at: Instant,
}

/// The policy, and what it has to remember.
#[derive(Debug)]
pub(crate) struct Rules {
    policy: Policy,
    clients: HashMap<Ipv4Addr, Allowance>,
}

impl Rules {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, clients: HashMap::new() }
    }

    /// Whether a request passes that brings `came` bytes.
    pub(crate) fn admit(&mut self, header: &Header, came: u64, now: Instant) -> Result<(), Refusal> {
        let Policy { networks, max_bytes, max_pixels, .. } = &self.policy;
        if !networks.iter().any(|&network| contains(network, header.client)) {
            return Err(Refusal::Blocked(header.client));
        }
        if header.bytes != came {
            return Err(Refusal::WrongLength { header: header.bytes, came });
        }
        if came > *max_bytes {
            return Err(Refusal::TooLarge { bytes: came, limit: *max_bytes });
        }
        if header.kind == Kind::Opaque && matches!(header.work, Work::Transcode(_)) {
            return Err(Refusal::WrongType);
        }
        if u64::from(header.width) * u64::from(header.height) > *max_pixels {
            return Err(Refusal::TooManyPixels { width: header.width, height: header.height, limit: *max_pixels });
        }
        self.spend(header.client, now)
    }

    fn spend(&mut self, client: Ipv4Addr, now: Instant) -> Result<(), Refusal> {
        let most = f64::from(self.policy.per_second);
        let filled = |allowance: &Allowance| {
            (allowance.tokens + now.saturating_duration_since(allowance.at).as_secs_f64() * most).min(most)
        };
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            self.clients.retain(|_, allowance| filled(allowance) < most);
            if self.clients.len() >= MAX_CLIENTS {
                return Err(Refusal::TooOften { client, per_second: self.policy.per_second });
            }
        }
        let allowance = self.clients.entry(client).or_insert(Allowance { tokens: most, at: now });
        *allowance = Allowance { tokens: filled(allowance), at: now };
        if allowance.tokens < 1.0 {
            return Err(Refusal::TooOften { client, per_second: self.policy.per_second });
        }
        allowance.tokens -= 1.0;
        Ok(())
    }
}

fn contains((network, bits): (Ipv4Addr, u8), client: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    (u32::from(network) ^ u32::from(client)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Output;
    use std::time::Duration;

    fn header() -> Header {
        Header {
            request: 1,
            client: Ipv4Addr::new(10, 1, 2, 3),
            kind: Kind::Jpeg,
            bytes: 1000,
            width: 640,
            height: 480,
            work: Work::Transcode(Output { side: 64, quality: 85 }),
            mark: None,
            audit: None,
            trace: false,
        }
    }

    #[test]
    fn invariant_1_each_rule_refuses() {
        let mut rules = Rules::new(Policy::default());
        let now = Instant::now();
        let mut admit = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            rules.admit(&header, 1000, now)
        };
        assert_eq!(admit(|_| ()), Ok(()));
        let outside = Ipv4Addr::new(11, 0, 0, 1);
        assert_eq!(admit(|header| header.client = Ipv4Addr::new(11, 0, 0, 1)), Err(Refusal::Blocked(outside)));
        assert_eq!(admit(|header| header.bytes = 999), Err(Refusal::WrongLength { header: 999, came: 1000 }));
        assert_eq!(admit(|header| header.kind = Kind::Opaque), Err(Refusal::WrongType));
        assert!(matches!(admit(|header| header.width = u32::MAX), Err(Refusal::TooManyPixels { .. })));
        let mut strict = Rules::new(Policy { max_bytes: 999, ..Policy::default() });
        assert_eq!(strict.admit(&header(), 1000, now), Err(Refusal::TooLarge { bytes: 1000, limit: 999 }));
    }

    #[test]
    fn invariant_1_rates_fill_up_again() {
        let mut rules = Rules::new(Policy { per_second: 2, ..Policy::default() });
        let start = Instant::now();
        let mut admit = |after_ms| rules.admit(&header(), 1000, start + Duration::from_millis(after_ms)).is_ok();
        assert_eq!([0, 0, 0, 499, 501, 501].map(&mut admit), [true, true, false, false, true, false]);
    }

    #[test]
    fn invariant_2_clients_are_forgotten() {
        let mut rules = Rules::new(Policy { per_second: 2, ..Policy::default() });
        let start = Instant::now();
        for n in 0..MAX_CLIENTS as u32 {
            let client = Ipv4Addr::from(0x0A00_0000 + n);
            assert_eq!(rules.admit(&Header { client, ..header() }, 1000, start), Ok(()));
        }
        assert!(matches!(rules.admit(&header(), 1000, start), Err(Refusal::TooOften { .. })), "all still count");
        assert_eq!(rules.admit(&header(), 1000, start + Duration::from_secs(1)), Ok(()));
        assert_eq!(rules.clients.len(), 1);
    }

    #[test]
    fn networks() {
        let ten = Ipv4Addr::new(10, 0, 0, 0);
        assert!(contains((ten, 8), Ipv4Addr::new(10, 255, 0, 1)) && !contains((ten, 8), Ipv4Addr::new(11, 0, 0, 1)));
        assert!(contains((ten, 0), Ipv4Addr::new(192, 168, 0, 1)), "0 bits: everybody");
        assert!(contains((ten, 32), ten) && !contains((ten, 32), Ipv4Addr::new(10, 0, 0, 1)));
    }
}
