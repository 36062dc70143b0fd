//! What is told at the end: tables for people, JSON for programs.

use crate::header::Work;
use crate::measure::Round;
use crate::options::{Link, Options, Passing};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use std::fmt::Write;
use std::fs;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What it ran on.
    pub(crate) machine: Machine,
    /// How it was run.
    pub(crate) settings: Settings,
    /// A row for each kind of request and each way of sending it.
    pub(crate) rows: Vec<Row>,
    /// The steps of single requests that move photographs.
    pub(crate) hops: Vec<Followed>,
    /// What a watermark cost in pages.
    pub(crate) watermark: Option<Watermark>,
    /// What was checked.
    pub(crate) checks: Checks,
}

/// A machine.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// How many processors it has.
    pub(crate) processors: usize,
    /// What they are.
    pub(crate) model: String,
    /// The kernel's version.
    pub(crate) kernel: String,
}

/// How a run was made.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) link: Link,
    pub(crate) concurrency: u32,
    pub(crate) workers: u32,
    pub(crate) replicas: u32,
    pub(crate) rounds: u32,
    pub(crate) page_bytes: u64,
    pub(crate) pool_bytes: u64,
}

/// One kind of request, sent one way.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What is sent, and what is done with it.
    pub(crate) load: String,
    /// What the last tier does.
    pub(crate) work: Work,
    /// The mean size of an image.
    pub(crate) mean_bytes: f64,
    /// How it is sent.
    pub(crate) passing: Passing,
    /// Throughput over that by value.
    pub(crate) throughput_ratio: Option<f64>,
    /// Mean latency by value over this.
    pub(crate) latency_ratio: Option<f64>,
    /// The median of all rounds.
    pub(crate) median: Round,
    /// Each round.
    pub(crate) rounds: Vec<Round>,
    /// What each tier did for a request.
    pub(crate) tiers: Vec<TierShare>,
}

/// What a tier did for a request, on average; all processes of the tier together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TierShare {
    pub(crate) tier: String,
    /// Bytes of images in the messages that came and went.
    pub(crate) image_bytes: f64,
    /// Processor time in microseconds.
    pub(crate) cpu_us: f64,
    /// How often a thread had to be woken.
    pub(crate) waits: f64,
}

impl TierShare {
    pub(crate) fn add(&mut self, other: &Self) {
        self.image_bytes += other.image_bytes;
        self.cpu_us += other.cpu_us;
        self.waits += other.waits;
    }
}

/// Requests that were followed.
#[derive(Debug, Serialize)]
pub(crate) struct Followed {
    pub(crate) passing: Passing,
    pub(crate) hops: Vec<Hop>,
}

/// A step of a request, in medians.
#[derive(Debug, Serialize)]
pub(crate) struct Hop {
    /// Where it leads.
    pub(crate) tier: String,
    /// From the tier before until the request is here, in microseconds.
    pub(crate) there_us: f64,
    /// From the answer here until it is at the tier before, in microseconds.
    pub(crate) back_us: f64,
}

/// What a watermark cost in pages.
#[derive(Debug, Serialize)]
pub(crate) struct Watermark {
    /// The picture.
    pub(crate) image: String,
    /// Its size in pages.
    pub(crate) object_pages: u64,
    /// Pages in which the watermarked picture differs from the original.
    pub(crate) changed_pages: u64,
    /// Pages that both together take.
    pub(crate) live_pages: u64,
    /// Pages that they would take if they shared none.
    pub(crate) logical_pages: u64,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Checks {
    /// Requests that had to be refused and were, each for its reason.
    pub(crate) refused: u32,
    /// Results that are byte for byte what they have to be, beside those of the rounds, which are checked as well.
    pub(crate) exact: u32,
    /// How often a tier that held on to an image found it unchanged.
    pub(crate) intact: u32,
    /// Images written to the output folder.
    pub(crate) written: u32,
    /// How like its original the least alike transcoded image is, in decibels.
    pub(crate) least_likeness_db: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        rows: Vec<Row>,
        hops: Vec<(Passing, Vec<Hop>)>,
        watermark: Option<Watermark>,
        checks: Checks,
    ) -> Self {
        let settings = Settings {
            link: options.link,
            concurrency: options.concurrency,
            workers: options.workers,
            replicas: options.replicas,
            rounds: options.rounds,
            page_bytes: options.page.bytes(),
            pool_bytes: options.pool.bytes(),
        };
        let hops = hops.into_iter().map(|(passing, hops)| Followed { passing, hops }).collect();
        Self { machine: Machine::this(), settings, rows, hops, watermark, checks }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |part: &dyn std::fmt::Display| writeln!(text, "{part}").expect("a string takes everything");
        let Settings { concurrency, workers, rounds, .. } = self.settings;
        let link = match self.settings.link {
            Link::Unix => "shared-memory rings",
            Link::Tcp => "TCP over loopback",
        };
        line(&format!("{} x {}, Linux {}", self.machine.processors, self.machine.model, self.machine.kernel));
        line(&format!(
            "client -> firewall -> balancer 1 -> balancer 2 -> balancer 3 -> dispatcher -> {workers} workers, a process each, {link}"
        ));
        line(&format!(
            "{concurrency} requests at a time, medians of {rounds} rounds by value and by reference in turns\n"
        ));
        line(&self.main_table());
        line(&EXPLANATION);
        if let Some(table) = self.tier_table() {
            line(&format!("\nWhat each tier did for one photograph that was moved (\"{}\"):\n", self.rows[0].load));
            line(&table);
        }
        if let Some(table) = self.hop_table() {
            line(&"\nWhere the time of a single request goes, one at a time (median us):\n");
            line(&table);
        }
        if let Some(watermark) = &self.watermark {
            line(&format!("\nCopy-on-write: {}", watermark.text()));
        }
        line(&format!("\nChecked: {}", self.checks.text()));
        text
    }

    fn main_table(&self) -> Table {
        let header = ["load", "image", "travels", "requests/s", "mean", "p50", "p99", "throughput", "mean latency"];
        let mut table = table(&header, 3);
        for row in &self.rows {
            let times =
                |ratio: Option<f64>, what: &str| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x {what}"));
            table.add_row([
                row.load.clone(),
                bytes(row.mean_bytes),
                row.passing.to_string(),
                rate(row.median.requests_per_second),
                duration(row.median.mean_us),
                duration(row.median.p50_us),
                duration(row.median.p99_us),
                times(row.throughput_ratio, "more"),
                times(row.latency_ratio, "less"),
            ]);
        }
        table
    }

    /// The first load's tiers, by value and by reference side by side.
    fn tier_table(&self) -> Option<Table> {
        let first = self.rows.first()?;
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.load == first.load).collect();
        let mut header = vec!["tier".to_owned()];
        for what in ["image bytes", "CPU us", "wake-ups"] {
            header.extend(rows.iter().map(|row| format!("{what}\n{}", row.passing)));
        }
        let mut table = table(&header.iter().map(String::as_str).collect::<Vec<_>>(), 1);
        let mut sums = vec![TierShare { tier: "all".into(), image_bytes: 0.0, cpu_us: 0.0, waits: 0.0 }; rows.len()];
        let cells = |tier: &str, shares: &[&TierShare]| {
            let mut cells = vec![tier.to_owned()];
            cells.extend(shares.iter().map(|share| bytes(share.image_bytes)));
            cells.extend(shares.iter().map(|share| format!("{:.1}", share.cpu_us)));
            cells.extend(shares.iter().map(|share| format!("{:.2}", share.waits)));
            cells
        };
        for n in 0..first.tiers.len() {
            let shares: Vec<&TierShare> = rows.iter().map(|row| &row.tiers[n]).collect();
            for (sum, share) in sums.iter_mut().zip(&shares) {
                sum.add(share);
            }
            table.add_row(cells(&first.tiers[n].tier, &shares));
        }
        table.add_row(cells("all", &sums.iter().collect::<Vec<_>>()));
        Some(table)
    }

    fn hop_table(&self) -> Option<Table> {
        let first = self.hops.first()?;
        let mut header = vec!["to".to_owned()];
        for way in ["there", "back"] {
            header.extend(self.hops.iter().map(|followed| format!("{way}\n{}", followed.passing)));
        }
        let mut table = table(&header.iter().map(String::as_str).collect::<Vec<_>>(), 1);
        for (n, hop) in first.hops.iter().enumerate() {
            let mut cells = vec![hop.tier.clone()];
            cells.extend(self.hops.iter().map(|followed| format!("{:.1}", followed.hops[n].there_us)));
            cells.extend(self.hops.iter().map(|followed| format!("{:.1}", followed.hops[n].back_us)));
            table.add_row(cells);
        }
        Some(table)
    }
}

/// Two lines for those who see the table for the first time.
const EXPLANATION: &str = "\
By value an image is copied into and out of every one of the six messages; by reference it is written to pages of the memory
node once, the tiers pass on where it is, and only the worker looks at it. \"move\" sums the bytes at the end and shows what passing
costs; \"transcode\" decodes, resizes and encodes, which takes the same time however the image came, and is most of it.";

impl Watermark {
    fn text(&self) -> String {
        let Self { image, object_pages, changed_pages, live_pages, logical_pages } = self;
        format!(
            "balancer 3 watermarked {image} ({object_pages} pages) while client and firewall held on to it. Pages copied: {changed_pages}.\n\
             Original and watermarked picture together take {live_pages} pages instead of {logical_pages}; client and firewall still read the original, byte for byte."
        )
    }
}

impl Checks {
    fn text(&self) -> String {
        let Self { refused, exact, intact, written, least_likeness_db } = self;
        let mut text = format!(
            "every answer of every round, and {exact} results byte for byte; {refused} bad requests refused for their reason; {intact} times \
             an image that client or firewall held on to was still the original"
        );
        if let Some(least) = least_likeness_db {
            write!(
                text,
                "; {written} images written and compared with another resizer's, at least {least:.1} dB alike"
            )
            .expect("a string takes everything");
        }
        text
    }
}

impl Machine {
    fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.map_or("processor", |(_, model)| model).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// A table whose first columns are text, and the others numbers.
fn table(header: &[&str], text_columns: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header.iter().map(Cell::new));
    for column in table.column_iter_mut().skip(text_columns) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn bytes(bytes: f64) -> String {
    match bytes {
        0.0 => "0".to_owned(),
        small if small < 1024.0 => format!("{small:.0} B"),
        kib if kib < 1024.0 * 1024.0 => format!("{:.0} KiB", kib / 1024.0),
        mib => format!("{:.2} MiB", mib / 1024.0 / 1024.0),
    }
}

fn duration(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} us") } else { format!("{:.2} ms", us / 1000.0) }
}

fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(passing: Passing, image_bytes: f64, ratio: Option<f64>) -> Row {
        let median = Round {
            requests: 100,
            seconds: 1.0,
            requests_per_second: 1234.0,
            mean_us: 850.0,
            p50_us: 800.0,
            p99_us: 2500.0,
        };
        let tier = |tier: &str| TierShare { tier: tier.into(), image_bytes, cpu_us: 12.5, waits: 2.0 };
        Row {
            load: "move photographs".into(),
            work: Work::Checksum,
            mean_bytes: 5e5,
            passing,
            throughput_ratio: ratio,
            latency_ratio: ratio,
            median,
            rounds: vec![median],
            tiers: vec![tier("client"), tier("firewall")],
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        let settings = Settings {
            link: Link::Unix,
            concurrency: 4,
            workers: 2,
            replicas: 1,
            rounds: 3,
            page_bytes: 4096,
            pool_bytes: 1 << 28,
        };
        let hop = Hop { tier: "firewall".into(), there_us: 7.25, back_us: 8.5 };
        let hops = vec![Followed { passing: rows[0].passing, hops: vec![hop] }];
        let watermark = Watermark {
            image: "cat".into(),
            object_pages: 700,
            changed_pages: 1,
            live_pages: 701,
            logical_pages: 1400,
        };
        Report { machine: Machine::this(), settings, rows, hops, watermark: Some(watermark), checks: Checks::default() }
    }

    #[test]
    fn the_text_has_what_a_reader_looks_for() {
        let both = report(vec![row(Passing::Value, 1e6, None), row(Passing::Reference, 0.0, Some(4.56))]);
        let text = both.text();
        for part in [
            "1234",
            "850 us",
            "2.50 ms",
            "4.56x more",
            "4.56x less",
            "488 KiB",
            "977 KiB",
            "701 pages instead of 1400",
            "7.2",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let one = report(vec![row(Passing::Reference, 0.0, None)]).text();
        assert!(one.contains("by reference") && !one.contains("more"), "{one}");
    }

    #[test]
    fn the_json_has_every_round() {
        let json = serde_json::to_value(report(vec![row(Passing::Reference, 0.0, Some(2.0))])).unwrap();
        assert_eq!(json["rows"][0]["passing"], "reference");
        assert_eq!(json["rows"][0]["rounds"][0]["p99_us"], 2500.0);
        assert_eq!(json["settings"]["page_bytes"], 4096);
        assert_eq!(json["watermark"]["changed_pages"], 1);
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0.0, 12.0, 2048.0, 3145728.0].map(bytes), ["0", "12 B", "2 KiB", "3.00 MiB"]);
        assert_eq!([12.3, 1234.5].map(duration), ["12 us", "1.23 ms"]);
        assert_eq!([12.34, 1234.5].map(rate), ["12.3", "1234"]);
    }
}
