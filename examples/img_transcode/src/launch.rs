//! The processes of the service: started, watched, stopped.
//!
//! 1. Each process has a pipe as its standard input and ends when that closes: whatever ends this process, also `kill -9`,
//!    ends them all.
//! 2. A process that ends unbidden is told of by name, with the last it wrote.
//! 3. Stopping waits for every process, at most [`STOP_DEADLINE`] before it is killed.

use crate::options::{Link, Options};
use crate::tiers::spec::{NextIs, Role, Spec, Wire};
use crate::tiers::{pick, rules};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a process may take until it is ready.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a process may take to end by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long after a failed call the end of a process may be seen, for it to be the reason.
const OBITUARY_DEADLINE: Duration = Duration::from_millis(500);

/// What a process prints when it is ready, before its address.
pub(crate) const READY: &str = "ready ";

/// Has the C library keep what large messages took, instead of giving it back to the kernel and faulting it in again for the
/// next: what comes by value is received into such memory, and is not to look slower than it could be.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1073741824"), ("MALLOC_TRIM_THRESHOLD_", "1073741824")];

/// What stands between the name of a tier and the number of one process of several.
pub(crate) const NUMBER: &str = " #";

/// How many of the last lines that a process wrote are shown when it ended unbidden.
const LAST_LINES: usize = 5;

/// Why the service doesn't run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A process can't be started.
    #[error("{name} can't be started")]
    Start {
        /// Which.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A process wasn't ready in time.
    #[error("{name} was not ready within {START_DEADLINE:?}{}", and_said(.said))]
    NotReady {
        /// Which.
        name: String,
        /// The last it wrote.
        said: String,
    },
    /// A process has ended though nobody told it to.
    #[error("{name} ended unbidden: {status}{}", and_said(.said))]
    Died {
        /// Which.
        name: String,
        /// How.
        status: String,
        /// The last it wrote.
        said: String,
    },
}

fn and_said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; it said:\n{text}") }
}

/// A process of the service, as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Tier {
    /// What it is called.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) url: String,
    /// Its process.
    pub(crate) pid: u32,
}

/// All processes of the service but the client, which is this one.
#[derive(Clone, Debug)]
pub(crate) struct Tiers {
    /// The memory node, where there is one.
    pub(crate) node: Option<Tier>,
    /// The tiers, from the firewall, where requests go, to the workers.
    pub(crate) chain: Vec<Tier>,
}

/// These processes, as long as they run.
#[derive(Debug)]
pub(crate) struct Service {
    /// Where and what they are.
    pub(crate) tiers: Tiers,
    /// Becomes true when all are to end.
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedReceiver<LaunchError>,
    watchers: JoinSet<()>,
    /// Sockets, and what the processes write to standard error.
    _folder: TempDir,
}

/// Starts processes one by one.
struct Launcher {
    program: PathBuf,
    folder: TempDir,
    link: Link,
    wire: Wire,
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedSender<LaunchError>,
    watchers: JoinSet<()>,
}

impl Service {
    /// Starts all tiers, and the memory node if they need one.
    pub(crate) async fn start(options: &Options, wire: Wire) -> Result<Self, LaunchError> {
        let this = |source| LaunchError::Start { name: "the service".into(), source };
        let (ended_sender, mut ended) = mpsc::unbounded_channel();
        let mut launcher = Launcher {
            program: std::env::current_exe().map_err(this)?,
            folder: tempfile::Builder::new().prefix("img-transcode-").tempdir().map_err(this)?,
            link: options.link,
            wire,
            stop: watch::Sender::new(false),
            ended: ended_sender,
            watchers: JoinSet::new(),
        };
        let tiers = match launcher.start_all(options).await {
            Ok(tiers) => tiers,
            // If another process has ended before, that is why.
            Err(error) => return Err(obituary(&mut ended).await.unwrap_or(error)),
        };
        let Launcher { folder, stop, watchers, .. } = launcher;
        Ok(Self { tiers, stop, ended, watchers, _folder: folder })
    }

    /// Which process has ended unbidden, if one has: a call that fails for that may fail a moment before it is seen.
    pub(crate) async fn obituary(&mut self) -> Option<LaunchError> {
        obituary(&mut self.ended).await
    }

    /// Waits until a process ends unbidden, and says which.
    pub(crate) async fn died(&mut self) -> LaunchError {
        match self.ended.recv().await {
            Some(error) => error,
            // Every watcher has told already what it had to tell.
            None => std::future::pending().await,
        }
    }

    /// Ends all processes, and waits for them.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.watchers.join_next().await.is_some() {}
    }
}

impl Launcher {
    /// Starts the memory node and all tiers, the last first.
    async fn start_all(&mut self, options: &Options) -> Result<Tiers, LaunchError> {
        let role = Role::MemoryNode { pool_bytes: options.pool.bytes(), page_bytes: options.page.bytes() };
        let node = match self.wire {
            Wire::Actors => Some(self.start("memory node", role).await?),
            #[cfg(feature = "compare")]
            Wire::Grpc => None,
        };
        let mut chain = Vec::new();
        let store = || node.as_ref().map(|node| node.url.clone()).unwrap_or_default();

        let workers = self.level("worker", options.workers, |_| Role::Worker { store: store() }).await?;
        let dispatchers = self
            .level("dispatcher", options.replicas, |n| {
                // Each has workers of its own, as far as they go round.
                let own = workers.iter().skip(n).step_by(options.replicas as usize).map(|worker| worker.url.clone());
                let workers: Vec<String> = own.collect();
                Role::Dispatcher { store: store(), workers }
            })
            .await?;
        let balancer = |policy, next: &[Tier], next_is| Role::Balancer {
            store: store(),
            policy,
            next: next.iter().map(|tier| tier.url.clone()).collect(),
            next_is,
        };
        let third = self
            .level("balancer 3", options.replicas, |_| {
                balancer(pick::Policy::LeastOutstanding, &dispatchers, NextIs::Dispatchers)
            })
            .await?;
        let second = self
            .level("balancer 2", options.replicas, |_| balancer(pick::Policy::RoundRobin, &third, NextIs::Balancers))
            .await?;
        let first = self.start("balancer 1", balancer(pick::Policy::ClientHash, &second, NextIs::Balancers)).await?;
        let role = Role::Firewall { store: store(), policy: rules::Policy::default(), next: first.url.clone() };
        chain.push(self.start("firewall", role).await?);
        chain.push(first);
        chain.extend([second, third, dispatchers, workers].into_iter().flatten());
        Ok(Tiers { node, chain })
    }

    /// Starts several processes that do the same.
    async fn level(&mut self, name: &str, count: u32, role: impl Fn(usize) -> Role) -> Result<Vec<Tier>, LaunchError> {
        let mut tiers = Vec::new();
        for n in 0..count as usize {
            let name = if count == 1 { name.to_owned() } else { format!("{name}{NUMBER}{}", n + 1) };
            tiers.push(self.start(&name, role(n)).await?);
        }
        Ok(tiers)
    }

    /// Starts a process and waits until it is ready.
    async fn start(&mut self, name: &str, role: Role) -> Result<Tier, LaunchError> {
        let start = |source| LaunchError::Start { name: name.to_owned(), source };
        let file = name.replace(NUMBER, "-").replace(' ', "-");
        let listen = match self.link {
            Link::Unix => format!("unix://{}", self.folder.path().join(format!("{file}.sock")).display()),
            Link::Tcp => "tcp://127.0.0.1:0".to_owned(),
        };
        let spec = serde_json::to_string(&Spec { name: name.to_owned(), listen, wire: self.wire, role })
            .expect("a specification has nothing that JSON can't say");
        let log = self.folder.path().join(format!("{file}.log"));
        let mut child = Command::new(&self.program)
            .arg("--tier")
            .arg(spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(start)?)
            .envs(ALLOCATOR)
            // An interrupt from the keyboard is for this process alone, which then ends the others.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let pid = child.id().expect("it was not waited for");
        let stdin = child.stdin.take().expect("it was piped");
        let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let line = timeout(START_DEADLINE, lines.next_line()).await;
        let url = match line {
            Ok(Ok(Some(line))) => line.strip_prefix(READY).map(str::to_owned),
            Ok(Ok(None) | Err(_)) => {
                let status = child.wait().await.map_err(start)?;
                return Err(died(name, status, &log));
            }
            Err(_) => None,
        };
        let Some(url) = url else {
            return Err(LaunchError::NotReady { name: name.to_owned(), said: last_lines(&log) });
        };
        self.watchers.spawn(watch(name.to_owned(), log, child, stdin, self.stop.subscribe(), self.ended.clone()));
        Ok(Tier { name: name.to_owned(), url, pid })
    }
}

async fn obituary(ended: &mut mpsc::UnboundedReceiver<LaunchError>) -> Option<LaunchError> {
    timeout(OBITUARY_DEADLINE, ended.recv()).await.ok().flatten()
}

/// Waits until a process ends, or has to.
async fn watch(
    name: String,
    log: PathBuf,
    mut child: Child,
    stdin: ChildStdin,
    mut stop: watch::Receiver<bool>,
    ended: mpsc::UnboundedSender<LaunchError>,
) {
    tokio::select! {
        status = child.wait() => {
            let status = status.expect("it is this process's child");
            // Nobody listens any more if all is over.
            drop(ended.send(died(&name, status, &log)));
        }
        _ = async { stop.wait_for(|&stop| stop).await.is_ok() } => {
            drop(stdin);
            if timeout(STOP_DEADLINE, child.wait()).await.is_err() {
                // It may have ended this very moment.
                drop(child.kill().await);
            }
        }
    }
}

fn died(name: &str, status: ExitStatus, log: &Path) -> LaunchError {
    LaunchError::Died { name: name.to_owned(), status: status.to_string(), said: last_lines(log) }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
