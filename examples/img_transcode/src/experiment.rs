//! The run: what must be refused is refused, every image goes through once and is looked at, then rounds by value and by
//! reference in turns, then single requests that are followed from tier to tier.

use crate::client::{Client, ClientError, Extras, look_at};
use crate::codec;
use crate::header::{Header, Kind, Mark, Output, Refusal, Work};
use crate::launch::{NUMBER, Tier, Tiers};
use crate::load::{Item, Load};
use crate::measure::{Round, median};
use crate::options::{Options, Passing};
use crate::photos::Photo;
use crate::report::{Checks, Hop, Report, Row, TierShare, Watermark};
use crate::service::{Image, Request, now_ns};
use crate::tiers::gauge::{self, Counted, Counters, Gauge};
use crate::usage::Usage;
use anyhow::{Context, ensure};
use dmrpc_actors::{ActorRef, System};
use dmrpc_objstore::{Store, StoreOptions};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// JPEG quality of transcoded images.
const QUALITY: u8 = 85;

/// How like the original a transcoded image has to be, in decibels of PSNR.
const MIN_LIKENESS_DB: f64 = 27.0;

/// Requests that are followed from tier to tier, one at a time.
const FOLLOWED: u32 = 300;

/// A watermark where no image is.
const OUTSIDE: Mark = Mark { offset: u64::MAX, width: u32::MAX, height: u32::MAX };

/// The memory node's figures are taken when they have been the same this often...
const STEADY_READINGS: u32 = 5;
/// ... so long apart...
const READING_INTERVAL: Duration = Duration::from_millis(20);
/// ... and at the latest after so many.
const MAX_READINGS: u32 = 200;

/// Whether a request was refused for the right reason.
type IsExpected = fn(&Refusal) -> bool;

/// One kind of request, sent one way.
struct Case {
    load: Arc<Load>,
    passing: Passing,
    requests: u32,
    rounds: Vec<Round>,
    shares: Vec<Share>,
}

/// What a process did for a case.
#[derive(Clone, Copy, Default)]
struct Share {
    counted: Counted,
    usage: Usage,
}

/// A process that is looked at.
struct Watched {
    name: String,
    pid: u32,
    gauge: Watch,
}

/// Where a process's counters are.
enum Watch {
    /// In this very process.
    Client(Arc<Counters>),
    /// A tier tells them when asked.
    Tier(ActorRef<Gauge>),
    /// The memory node knows nothing of images.
    Node,
}

/// The client's side of the run.
pub(crate) struct Experiment<'a> {
    options: &'a Options,
    client: Client,
    watched: Vec<Watched>,
    progress: ProgressBar,
}

/// What is to be sent, made of photographs.
pub(crate) fn loads(options: &Options, photos: &[Photo]) -> anyhow::Result<Vec<Load>> {
    let mut loads = vec![Load::moving(photos)];
    loads.extend(options.size.iter().map(|&size| Load::of_size(photos, size)));
    loads.push(Load::marking(photos, options.page)?);
    if !options.payload_only {
        loads.push(Load::transcoding(photos, output(options))?);
    }
    Ok(loads)
}

fn output(options: &Options) -> Output {
    Output { side: options.side, quality: QUALITY }
}

impl<'a> Experiment<'a> {
    /// Connects to a service.
    pub(crate) async fn new(options: &'a Options, tiers: &Tiers) -> anyhow::Result<Self> {
        let node = tiers.node.as_ref().context("there is no memory node")?;
        let mut store = StoreOptions::new(&node.url);
        store.name = "client".into();
        let store = Store::connect_with(store).await.context("the memory node can't be reached")?;
        let system = System::builder().name("client").store(store.clone()).build().await?;
        let url = |tier: &Tier, name| format!("{}#{name}", tier.url);
        let firewall = system.connect(&url(&tiers.chain[0], crate::tiers::process::NAME)).await?;
        let client = Client::new(firewall, store);
        let gauge = Watch::Client(Arc::clone(&client.counters));
        let mut watched = vec![Watched { name: "client".into(), pid: std::process::id(), gauge }];
        for tier in &tiers.chain {
            let gauge = Watch::Tier(system.connect(&url(tier, gauge::NAME)).await?);
            watched.push(Watched { name: tier.name.clone(), pid: tier.pid, gauge });
        }
        watched.push(Watched { name: node.name.clone(), pid: node.pid, gauge: Watch::Node });
        let progress = if options.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = "{msg:<42} {wide_bar} {pos:>6}/{len} {elapsed_precise}";
        progress.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
        Ok(Self { options, client, watched, progress })
    }

    /// Runs everything.
    pub(crate) async fn run(&self, loads: Vec<Load>) -> anyhow::Result<Report> {
        let loads: Vec<Arc<Load>> = loads.into_iter().map(Arc::new).collect();
        let systems = &self.options.systems;
        let requests = |load: &Load| match load.work {
            Work::Transcode(_) => self.options.transcodes,
            _ => self.options.requests,
        };
        let per_system: u64 = loads
            .iter()
            .map(|load| load.items.len() as u64 + u64::from(requests(load)) * u64::from(self.options.rounds))
            .sum();
        self.progress.set_length((per_system + u64::from(FOLLOWED)) * systems.len() as u64);

        let mut checks = Checks { refused: self.refusals(&loads[0].items[0]).await?, ..Checks::default() };
        let mut rows = Vec::new();
        let mut cases: Vec<Case> = Vec::new();
        for load in &loads {
            for &passing in systems {
                self.progress.set_message(format!("check: {}, {passing}", load.title));
                self.check(load, passing, &mut checks).await?;
            }
            let mut pair: Vec<Case> = systems.iter().map(|&passing| self.case(load, passing, requests(load))).collect();
            for _ in 0..self.options.rounds {
                for case in &mut pair {
                    self.round(case).await?;
                }
            }
            cases.extend(pair);
        }
        let watermark = if systems.contains(&Passing::Reference) { self.watermark(&loads).await? } else { None };
        let mut hops = Vec::new();
        for &passing in systems {
            self.progress.set_message(format!("follow: {}, {passing}", loads[0].title));
            hops.push((passing, self.follow(&loads[0], passing).await?));
        }
        for case in &cases {
            rows.push(self.row(case, &cases));
        }
        self.progress.finish_and_clear();
        Ok(Report::new(self.options, rows, hops, watermark, checks))
    }

    fn case(&self, load: &Arc<Load>, passing: Passing, requests: u32) -> Case {
        let shares = vec![Share::default(); self.watched.len()];
        Case { load: Arc::clone(load), passing, requests, rounds: Vec::new(), shares }
    }

    /// One round, and what it took of whom.
    async fn round(&self, case: &mut Case) -> anyhow::Result<()> {
        self.progress.set_message(format!("{}, {}", case.load.title, case.passing));
        let before = self.readings().await?;
        let concurrency = self.options.concurrency;
        let round = self.client.round(&case.load, case.passing, case.requests, concurrency, &self.progress).await?;
        let after = self.readings().await?;
        for ((share, before), after) in case.shares.iter_mut().zip(before).zip(after) {
            share.counted.requests += after.counted.requests - before.counted.requests;
            share.counted.image_bytes += after.counted.image_bytes - before.counted.image_bytes;
            share.usage = share.usage + after.usage.since(before.usage);
        }
        case.rounds.push(round);
        Ok(())
    }

    async fn readings(&self) -> anyhow::Result<Vec<Share>> {
        let mut readings = Vec::with_capacity(self.watched.len());
        for watched in &self.watched {
            let counted = match &watched.gauge {
                Watch::Client(counters) => counters.read(),
                Watch::Tier(gauge) => gauge.read().await?,
                Watch::Node => Counted::default(),
            };
            readings.push(Share { counted, usage: Usage::of(watched.pid).unwrap_or_default() });
        }
        Ok(readings)
    }

    /// Sends every image once, with the firewall holding on to it, and looks at what comes back.
    async fn check(&self, load: &Load, passing: Passing, checks: &mut Checks) -> anyhow::Result<()> {
        let folder = self.options.out.join(passing.to_string().replace(' ', "-"));
        for item in &load.items {
            let extras = Extras { audit: true, trace: false };
            let served = self.client.send(0, item, load.work, passing, extras).await?;
            ensure!(served.answer.held_intact == Some(true), "the firewall did not look at what it held");
            let held = served.sent.read().await?;
            ensure!(crc32fast::hash(&held) == item.sum, "{}: what the client holds on to has changed", item.name);
            checks.intact += 2;
            checks.exact += 1;
            if let (Some(jpeg), Work::Transcode(output)) = (&served.result, load.work) {
                let (size, likeness) = look_at(item, jpeg)?;
                let expected = codec::fit(item.width, item.height, output.side);
                ensure!(size == expected, "{} came back with {size:?} pixels, not {expected:?}", item.name);
                ensure!(likeness >= MIN_LIKENESS_DB, "{} came back with {likeness:.1} dB of likeness", item.name);
                checks.least_likeness_db = Some(checks.least_likeness_db.map_or(likeness, |least| least.min(likeness)));
                write(&folder, &format!("{}.jpg", item.name), jpeg)?;
                checks.written += 1;
            }
            self.progress.inc(1);
        }
        Ok(())
    }

    /// Sends what must be refused.
    async fn refusals(&self, item: &Item) -> anyhow::Result<u32> {
        let transcode = Work::Transcode(output(self.options));
        let good = || self.client.header(0, item, Work::Checksum, Extras::default());
        let cases: [(&str, Header, IsExpected); 6] = [
            ("a client outside", Header { client: Ipv4Addr::new(192, 0, 2, 1), ..good() }, |refusal| {
                matches!(refusal, Refusal::Blocked(_))
            }),
            ("a header that lies about the size", Header { bytes: 1, ..good() }, |refusal| {
                matches!(refusal, Refusal::WrongLength { .. })
            }),
            ("too many pixels", Header { width: u32::MAX, ..good() }, |refusal| {
                matches!(refusal, Refusal::TooManyPixels { .. })
            }),
            ("no image", Header { kind: Kind::Opaque, work: transcode, ..good() }, |refusal| {
                matches!(refusal, Refusal::WrongType)
            }),
            (
                "a photograph that is called a TIFF",
                Header { kind: Kind::TiledTiff, work: transcode, ..good() },
                |refusal| matches!(refusal, Refusal::Unreadable(_)),
            ),
            ("a watermark outside the image", Header { mark: Some(OUTSIDE), ..good() }, |refusal| {
                matches!(refusal, Refusal::MarkOutside { .. })
            }),
        ];
        for (what, header, expected) in &cases {
            for &passing in &self.options.systems {
                let header = header.clone();
                let image = match passing {
                    Passing::Value => Image::Value(item.bytes.clone()),
                    Passing::Reference => Image::Reference(self.client.put(item).await?),
                };
                match self.client.ask(Request { header, image }).await? {
                    Err(refusal) if expected(&refusal) => {}
                    Err(refusal) => anyhow::bail!("{what}, {passing}, was refused for another reason: {refusal}"),
                    Ok(_) => anyhow::bail!("{what}, {passing}, was served"),
                }
            }
        }
        Ok(u32::try_from(cases.len() * self.options.systems.len()).expect("a few"))
    }

    /// Has the largest picture watermarked while three hold on to the original, and counts pages.
    async fn watermark(&self, loads: &[Arc<Load>]) -> anyhow::Result<Option<Watermark>> {
        let Some(load) = loads.iter().find(|load| load.items.iter().any(|item| item.mark.is_some())) else {
            return Ok(None);
        };
        self.progress.set_message("watermark");
        let item = load.items.iter().max_by_key(|item| item.bytes.len()).expect("a load has images");
        let page_bytes = usize::try_from(self.options.page.bytes()).context("a page that fits memory")?;
        let before = self.steady_pages().await?;
        let extras = Extras { audit: true, trace: false };
        let served = self.client.send(0, item, Work::Echo, Passing::Reference, extras).await?;
        let after = self.steady_pages().await?;
        let original = served.sent.read().await?;
        let marked = served.result.as_ref().context("the marked image did not come back")?;
        let pages = original.chunks(page_bytes).zip(marked.chunks(page_bytes));
        let changed = pages.filter(|(original, marked)| original != marked).count() as u64;
        ensure!(changed == 1, "{changed} pages of {} differ, not 1", item.name);
        ensure!(crc32fast::hash(&original) == item.sum, "the client's original has changed");
        ensure!(served.answer.held_intact == Some(true), "the firewall's original has changed");

        // And to look at.
        for (name, bytes) in [("original", &*original), ("watermarked", &**marked)] {
            let shown = codec::transcode(bytes, Kind::TiledTiff, output(self.options))?;
            write(&self.options.out.join("watermark"), &format!("{} {name}.jpg", item.name), &shown)?;
        }
        let object_pages = (item.bytes.len() as u64).div_ceil(self.options.page.bytes());
        Ok(Some(Watermark {
            image: item.name.clone(),
            object_pages,
            changed_pages: changed,
            live_pages: after.live - before.live,
            logical_pages: after.logical - before.logical,
        }))
    }

    /// The memory node's pages, once nothing is on its way any more.
    async fn steady_pages(&self) -> anyhow::Result<Pages> {
        self.client.store.flush().await?;
        let mut last = Pages::default();
        let mut same = 0;
        for _ in 0..MAX_READINGS {
            let stats = self.client.store.stats().await?;
            let pages = Pages { live: stats.live_pages.get(), logical: stats.logical_pages.get() };
            same = if pages == last { same + 1 } else { 0 };
            last = pages;
            if same >= STEADY_READINGS {
                break;
            }
            tokio::time::sleep(READING_INTERVAL).await;
        }
        Ok(last)
    }

    /// Follows requests from tier to tier, one at a time, and gives the median time of each step.
    async fn follow(&self, load: &Load, passing: Passing) -> Result<Vec<Hop>, ClientError> {
        let mut steps: BTreeMap<(usize, String), (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for n in 0..FOLLOWED {
            let item = &load.items[n as usize % load.items.len()];
            let extras = Extras { audit: false, trace: true };
            let start = now_ns();
            let served = self.client.send(0, item, load.work, passing, extras).await?;
            let end = now_ns();
            let us = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e3;
            // The last stop is the first tier.
            let (mut there, mut back) = (start, end);
            for (depth, stop) in served.answer.stops.iter().rev().enumerate() {
                let (way_there, way_back) = steps.entry((depth, kind_of_tier(&stop.tier))).or_default();
                way_there.push(us(there, stop.there_ns));
                way_back.push(us(stop.back_ns, back));
                (there, back) = (stop.there_ns, stop.back_ns);
            }
            let (inside, _) = steps.entry((usize::MAX, "worker, inside".into())).or_default();
            inside.push(us(there, back));
            self.progress.inc(1);
        }
        let hops = steps.into_iter().map(|((_, tier), (there, back))| Hop {
            tier,
            there_us: median(there).unwrap_or_default(),
            back_us: median(back).unwrap_or_default(),
        });
        Ok(hops.collect())
    }

    fn row(&self, case: &Case, cases: &[Case]) -> Row {
        let requests = u64::from(case.requests) * case.rounds.len() as u64;
        let per_request = |figure: u64| figure as f64 / requests as f64;
        let mut tiers: Vec<TierShare> = Vec::new();
        for (watched, share) in self.watched.iter().zip(&case.shares) {
            let tier = kind_of_tier(&watched.name);
            let own = TierShare {
                tier,
                image_bytes: per_request(share.counted.image_bytes),
                cpu_us: per_request(share.usage.cpu_ns) / 1e3,
                waits: per_request(share.usage.waits),
            };
            match tiers.last_mut().filter(|last| last.tier == own.tier) {
                Some(last) => last.add(&own),
                None => tiers.push(own),
            }
        }
        let median = Round::median(&case.rounds).expect("there is a round at least");
        let by_value =
            cases.iter().find(|other| other.load.title == case.load.title && other.passing == Passing::Value);
        let by_value = by_value.filter(|_| case.passing == Passing::Reference);
        let by_value = by_value.and_then(|other| Round::median(&other.rounds));
        Row {
            load: case.load.title.clone(),
            work: case.load.work,
            mean_bytes: case.load.mean_bytes(),
            passing: case.passing,
            throughput_ratio: by_value.map(|other| median.requests_per_second / other.requests_per_second),
            latency_ratio: by_value.map(|other| other.mean_us / median.mean_us),
            median,
            rounds: case.rounds.clone(),
            tiers,
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Pages {
    live: u64,
    logical: u64,
}

/// A tier's name without the number that tells several of its kind apart.
fn kind_of_tier(name: &str) -> String {
    name.split_once(NUMBER).map_or(name, |(kind, _)| kind).to_owned()
}

fn write(folder: &std::path::Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(name), bytes)
    };
    write().with_context(|| format!("can't write to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_tiers() {
        for (name, kind) in [
            ("worker", "worker"),
            ("worker #12", "worker"),
            ("balancer 3 #1", "balancer 3"),
            ("balancer 1", "balancer 1"),
            ("memory node", "memory node"),
        ] {
            assert_eq!(kind_of_tier(name), kind);
        }
    }
}
