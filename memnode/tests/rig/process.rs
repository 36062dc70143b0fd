//! The program `dmrpc-memnode`, running.

use super::{Client, wait_until};
use dmrpc_fabric::address::Address;
use dmrpc_wire::Stats;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// A running node. Killed on drop.
pub(crate) struct NodeProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it printed when it was ready.
    pub(crate) ready: String,
    pub(crate) addresses: Vec<Address>,
    folder: TempDir,
}

/// How a node ended.
pub(crate) struct Exit {
    pub(crate) success: bool,
    /// What it printed after it was ready.
    pub(crate) stdout: String,
    pub(crate) socket: PathBuf,
}

impl NodeProcess {
    /// The program, to be given arguments.
    pub(crate) fn program() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dmrpc-memnode"));
        command.env_remove("DMRPC_TENANT_TOKEN");
        command
    }

    /// Starts one that listens at a Unix socket and at a free port, with these arguments too. Of ordinary pages, if they don't
    /// say otherwise: segments of huge ones are larger than asked for.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_program(Self::program(), args)
    }

    /// Starts one that may have so many descriptors.
    pub(crate) fn start_with_descriptors(descriptors: u32, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let program = Self::program();
        shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]).arg(program.get_program());
        Self::start_program(shell, args)
    }

    /// Starts one by that command, which is to be given its arguments.
    pub(crate) fn start_program(mut program: Command, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = format!("unix://{}/node", folder.path().display());
        let mut child = program
            .args(["--listen", &socket, "--listen", "tcp://127.0.0.1:0"])
            .args(if args.contains(&"--hugepages") { &[][..] } else { &["--hugepages", "never"] })
            .args(args)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a file in a folder of ours"))
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        stdout.read_line(&mut ready).expect("reading what it prints");
        let listed = ready.split_whitespace().find_map(|word| word.strip_prefix("listen="));
        let Some(listed) = listed else {
            let _ = child.kill();
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            panic!("a node that does not get ready: it printed {ready:?} and logged {log}");
        };
        let addresses = listed.split(',').map(|url| url.parse().expect("a URL")).collect();
        Self { child, stdout, ready, addresses, folder }
    }

    pub(crate) fn unix(&self) -> &Address {
        &self.addresses[0]
    }

    pub(crate) fn tcp(&self) -> &Address {
        &self.addresses[1]
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the file is there")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Its figures, by way of a session that is gone afterwards.
    pub(crate) fn stats(&self) -> Stats {
        self.try_stats(b"").expect("a session for the figures")
    }

    pub(crate) fn try_stats(&self, token: &[u8]) -> Option<Stats> {
        let mut client = Client::open(self.tcp(), &super::Terms { token, ..super::Terms::default() }).ok()?;
        let stats = client.stats();
        client.bye();
        Some(stats)
    }

    /// Looks at its figures until they are as wanted. The session that looks is one of them.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Stats) -> bool) -> Stats {
        let mut last = None;
        let started = Instant::now();
        while started.elapsed() < super::LIMIT {
            if let Some(stats) = self.try_stats(b"") {
                if condition(&stats) {
                    return stats;
                }
                last = Some(stats);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{what}: not within {:?}; {last:#?}", super::LIMIT);
    }

    /// Runs `dmrpc-memnode stat`.
    pub(crate) fn stat(&self, args: &[&str]) -> Output {
        Self::program().arg("stat").arg(self.unix().to_string()).args(args).output().expect("the program starts")
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: rustix::process::Signal) -> Exit {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it is our child");
        let mut status = None;
        wait_until("the end of the node", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).expect("it has ended");
        Exit { success: status.is_some_and(|status| status.success()), stdout, socket: self.socket() }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the node's log:\n{}", self.log());
        }
    }
}
