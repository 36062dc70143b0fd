//! Asks a running node for its figures.

use anyhow::{Context, bail};
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::link::{Body, Incoming, Target};
use dmrpc_fabric::listen::connect;
use dmrpc_pages::ByteSize;
use dmrpc_wire::{Hello, Notice, Reply, Request, Stats, Status};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the node is: unix:///path, tcp://host:port, tls://host:port?ca=FILE, …
    address: Address,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
    /// A tenant's token, if the node asks for one.
    #[arg(long, env = "DMRPC_TENANT_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// How long the node may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    deadline: humantime::Duration,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let stats = ask(args).with_context(|| format!("asking {}", args.address))?;
    let text = if args.json { json(&stats) } else { table(&stats) };
    std::io::stdout().write_all(text.as_bytes()).context("writing the figures")
}

fn ask(args: &Args) -> anyhow::Result<Stats> {
    let deadline = Instant::now() + *args.deadline;
    let link = connect(&args.address, &LinkOptions::default(), deadline)?;
    let mut node = Connected {
        sender: BlockingSender::new(link.sender),
        receiver: BlockingReceiver::new(link.receiver),
        deadline,
    };
    let hello = Hello {
        features: 0,
        quota_pages: 0,
        resume_session: 0,
        resume_epoch: 0,
        resume_key: [0; 16],
        token: args.token.as_bytes(),
        name: "dmrpc-memnode stat",
    };
    node.ask(&Request::Hello(hello), |reply| matches!(reply, Reply::Welcome(_)).then_some(()))?;
    let stats = node.ask(&Request::Stat, |reply| match reply {
        Reply::Stats(stats) => Some(**stats),
        _ => None,
    })?;
    node.send(&Request::Bye)?;
    node.sender.flush(deadline)?;
    Ok(stats)
}

struct Connected {
    sender: BlockingSender,
    receiver: BlockingReceiver,
    deadline: Instant,
}

impl Connected {
    fn send(&mut self, request: &Request<'_>) -> anyhow::Result<()> {
        let mut head = Vec::new();
        request.encode(1, 0, &mut head);
        Ok(self.sender.send(&head, Body::new(), self.deadline)?)
    }

    /// Sends a request and waits for the answer that `pick` wants.
    fn ask<T>(&mut self, request: &Request<'_>, pick: impl Fn(&Reply<'_>) -> Option<T>) -> anyhow::Result<T> {
        self.send(request)?;
        loop {
            let has_body = match self.receiver.recv(self.deadline)? {
                Incoming::Head { head, body_len } => {
                    let (head, reply) = Reply::decode(head)?;
                    match (head.status, &reply) {
                        (Status::Ok, Reply::Notice(Notice::Goodbye)) => bail!("the node ended the session"),
                        (Status::Ok, _) => {}
                        (status, _) => bail!("the node says no: {status:?}"),
                    }
                    if let Some(picked) = pick(&reply) {
                        return Ok(picked);
                    }
                    body_len > 0
                }
                Incoming::Body(_) | Incoming::Empty => false,
            };
            if has_body {
                self.receiver.recv_body(Target::Discard, self.deadline)?;
            }
        }
    }
}

/// Every figure under its name.
fn figures(stats: &Stats) -> [(&'static str, u64); 24] {
    [
        ("page_bytes", stats.page_bytes.get()),
        ("pool_pages", stats.pool_pages.get()),
        ("committed_pages", stats.committed_pages.get()),
        ("free_pages", stats.free_pages.get()),
        ("unpublished_pages", stats.unpublished_pages.get()),
        ("live_pages", stats.live_pages.get()),
        ("quarantined_pages", stats.quarantined_pages.get()),
        ("logical_pages", stats.logical_pages.get()),
        ("segments", stats.segments.get()),
        ("sessions", stats.sessions.get()),
        ("objects", stats.objects.get()),
        ("tree_nodes", stats.tree_nodes.get()),
        ("holds", stats.holds.get()),
        ("grants", stats.grants.get()),
        ("requests", stats.requests.get()),
        ("replays", stats.replays.get()),
        ("failures", stats.failures.get()),
        ("commits", stats.commits.get()),
        ("frees", stats.frees.get()),
        ("bytes_read", stats.bytes_read.get()),
        ("bytes_written", stats.bytes_written.get()),
        ("pages_copied", stats.pages_copied.get()),
        ("leases_expired", stats.leases_expired.get()),
        ("wakeups", stats.wakeups.get()),
    ]
}

/// How many times each page that is in use is used; 1 when there are none.
fn sharing_ratio(stats: &Stats) -> f64 {
    match (stats.logical_pages.get(), stats.live_pages.get()) {
        (0, _) | (_, 0) => 1.0,
        (logical, live) => logical as f64 / live as f64,
    }
}

fn json(stats: &Stats) -> String {
    let mut object: serde_json::Map<_, _> =
        figures(stats).into_iter().map(|(name, figure)| (name.to_owned(), figure.into())).collect();
    object.insert("sharing_ratio".into(), sharing_ratio(stats).into());
    format!("{}\n", serde_json::Value::Object(object))
}

fn table(stats: &Stats) -> String {
    let page_bytes = stats.page_bytes.get();
    let pool_pages = stats.pool_pages.get();
    let mut text = String::new();
    let mut row = |name: &str, figure: &str, remark: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}", format!("{name:<20} {figure:>14}  {remark}").trim_end());
    };
    row("page", &ByteSize(page_bytes).to_string(), "");
    for (name, pages) in [
        ("pool", pool_pages),
        ("committed", stats.committed_pages.get()),
        ("  live", stats.live_pages.get()),
        ("  unpublished", stats.unpublished_pages.get()),
        ("  free", stats.free_pages.get()),
        ("  quarantined", stats.quarantined_pages.get()),
    ] {
        let share = pages as f64 * 100.0 / pool_pages.max(1) as f64;
        row(
            name,
            &format!("{:.1} MiB", (pages * page_bytes) as f64 / 1048576.0),
            &format!("{share:5.1}% {pages} pages"),
        );
    }
    let ratio = format!("{:.2}", sharing_ratio(stats));
    row("sharing ratio", &ratio, &format!("{} pages of objects in {}", stats.logical_pages, stats.live_pages));
    for (name, figure) in figures(stats).into_iter().skip(8) {
        row(&name.replace('_', " "), &figure.to_string(), "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_node_shares_nothing() {
        let stats = Stats { page_bytes: 4096.into(), pool_pages: 256.into(), ..Stats::default() };
        assert_eq!(sharing_ratio(&stats), 1.0);
        let table = table(&stats);
        assert!(table.contains("pool                        1.0 MiB  100.0% 256 pages\n"), "{table}");
    }

    #[test]
    fn json_has_every_figure() {
        let stats = Stats { live_pages: 2.into(), logical_pages: 5.into(), ..Stats::default() };
        let value: serde_json::Value = serde_json::from_str(&json(&stats)).expect("own encoding");
        assert_eq!(value["live_pages"], 2);
        assert_eq!(value["sharing_ratio"], 2.5);
        assert_eq!(value.as_object().expect("an object").len(), size_of::<Stats>() / 8 + 1);
    }
}
