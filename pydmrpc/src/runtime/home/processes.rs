//! Workers' processes: how they begin, what they print, how they end.

use super::{FIRST_OUTPUT, Home, OWN, ZYGOTE};
use crate::runtime::client::Client;
use crate::runtime::completions::List;
use crate::runtime::output::{Output, Printed};
use crate::runtime::zygote::{News, Zygote};
use dmrpc_hub::record::Record;
use dmrpc_hub::{ClientId, Event, FunctionId, WorkerId};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the zygote may take to say how a worker ended whose link has.
pub(super) const ENDING: Duration = Duration::from_millis(500);
/// So many zygotes try to start a worker.
const MAX_ZYGOTES: u32 = 3;

/// A worker's process.
pub(super) struct Process {
    pub(super) secret: u64,
    pub(super) environment: u64,
    pub(super) pid: u32,
    /// How many zygotes were to start it.
    pub(super) zygotes: u32,
    pub(super) process: Option<OwnedFd>,
    pub(super) client: Option<ClientId>,
    pub(super) output: [Option<Output>; 2],
    /// It is to be killed as soon as it can be.
    pub(super) doomed: bool,
    /// When its link ended.
    pub(super) unlinked: Option<Instant>,
    /// What its actor calls itself.
    pub(super) title: Option<String>,
    /// The driver that it works for, or worked for last.
    pub(super) driver: ClientId,
    /// How it ended.
    pub(super) status: Option<i32>,
}

impl Process {
    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            let _ = pidfd_send_signal(process.as_fd(), Signal::KILL);
        }
    }

    /// How it ended, for people.
    pub(super) fn last_words(&mut self) -> String {
        let mut words = match self.status {
            Some(i32::MAX) => "it could not be started".to_owned(),
            Some(status @ ..0) => match Signal::from_named_raw(-status) {
                Some(signal) => format!("process {} was ended by signal {} ({signal:?})", self.pid, -status),
                None => format!("process {} was ended by signal {}", self.pid, -status),
            },
            Some(status) => format!("process {} exited with code {status}", self.pid),
            None => format!("process {} is gone", self.pid),
        };
        for (output, name) in self.output.iter().flatten().zip(["output", "error output"]) {
            let last = output.last_lines();
            if last.len() > 0 {
                words.push_str(&format!("\n  the last it printed to its standard {name}:\n"));
                for line in last {
                    words.push_str(&format!("    {line}\n"));
                }
            }
        }
        words
    }
}

impl Home {
    pub(super) fn start_zygote(&mut self, client: &Arc<Client>) -> std::io::Result<()> {
        let zygote = Zygote::start(&self.recipe)?;
        client.turns().add(zygote.descriptor(), ZYGOTE)?;
        self.zygote = Some(zygote);
        Ok(())
    }

    pub(super) fn start(&mut self, client: &Arc<Client>, worker: WorkerId, environment: u64, zygotes: u32) {
        let mut secret = [0; 8];
        let _ = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
        let secret = u64::from_le_bytes(secret);
        let definition = self.functions.get(&FunctionId(u128::from(environment))).map(|payload| payload.bytes.clone());
        let mut process = Process {
            secret,
            environment,
            pid: 0,
            zygotes,
            process: None,
            client: None,
            output: [None, None],
            doomed: false,
            unlinked: None,
            title: None,
            driver: OWN,
            status: None,
        };
        if self.zygote.is_none() && self.start_zygote(client).is_err() {
            process.status = Some(i32::MAX);
        }
        let key = FIRST_OUTPUT + 2 * u64::from(worker.0);
        let pipes = Output::pipe().and_then(|out| Ok((out, Output::pipe()?)));
        match (&mut self.zygote, pipes) {
            (Some(zygote), Ok(((out, out_end), (error, error_end)))) => {
                let _ = client.turns().add(out.descriptor(), key);
                let _ = client.turns().add(error.descriptor(), key + 1);
                process.output = [Some(out), Some(error)];
                let definition = definition.as_deref().unwrap_or_default();
                zygote.fork(worker.0, secret, environment, definition, [out_end, error_end]);
            }
            _ => process.status = Some(i32::MAX),
        }
        self.processes.insert(worker, process);
    }

    pub(super) fn zygote_ready(&mut self, client: &Arc<Client>) {
        loop {
            let Some(zygote) = &mut self.zygote else { return };
            match zygote.news() {
                None => return zygote.push(),
                Some(News::Started { worker, pid, process }) => {
                    let Some(entry) = self.processes.get_mut(&WorkerId(worker)) else { continue };
                    (entry.pid, entry.process) = (pid, Some(process));
                    if entry.doomed {
                        entry.kill();
                    }
                }
                Some(News::Ended { worker, status }) => {
                    if let Some(process) = self.processes.get_mut(&WorkerId(worker)) {
                        process.status = Some(status);
                        self.drain(client, WorkerId(worker));
                        self.bury(client, WorkerId(worker));
                    }
                }
                Some(News::Gone) => {
                    if let Some(zygote) = self.zygote.take() {
                        client.turns().remove(zygote.descriptor());
                    }
                    // Those that are not there yet are started by another, unless that is what zygotes die of; how the
                    // others end nobody will say.
                    let coming = self.processes.iter().filter(|(_, process)| process.client.is_none());
                    let coming: Vec<WorkerId> = coming.map(|(&worker, _)| worker).collect();
                    for worker in coming {
                        let process = self.processes.get_mut(&worker).expect("just listed");
                        process.kill();
                        if process.doomed || process.zygotes == MAX_ZYGOTES {
                            process.status = Some(i32::MAX);
                            self.bury(client, worker);
                            continue;
                        }
                        let (environment, zygotes) = (process.environment, process.zygotes);
                        let process = self.processes.remove(&worker).expect("just looked at");
                        for output in process.output.iter().flatten() {
                            client.turns().remove(output.descriptor());
                        }
                        self.start(client, worker, environment, zygotes + 1);
                    }
                    return;
                }
            }
        }
    }

    /// Reads what an ended worker sent and printed last.
    pub(super) fn drain(&mut self, client: &Arc<Client>, worker: WorkerId) {
        let peer = self.processes.get(&worker).and_then(|process| process.client);
        if let Some(&index) = peer.and_then(|peer| self.by_client.get(&peer)) {
            while self.receive(client, index) {}
        }
        for stream in [0, 1] {
            self.print(client, worker, stream);
        }
    }

    /// A worker's process or link has ended, or both: tells the core when all is known.
    pub(super) fn bury(&mut self, client: &Arc<Client>, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        let linked = process.client.is_some_and(|client| self.by_client.contains_key(&client));
        let waited = process.unlinked.is_some_and(|since| since.elapsed() > ENDING);
        match process.status {
            // Its link goes when its process has; what was in it was read.
            Some(_) if linked => {
                let index = self.by_client[&process.client.expect("linked")];
                self.unlink(client, index);
                return self.bury(client, worker);
            }
            Some(_) => {}
            None if process.unlinked.is_some() && (waited || self.zygote.is_none()) => process.kill(),
            None => return,
        }
        for stream in [0, 1] {
            self.print(client, worker, stream);
        }
        let mut process = self.processes.remove(&worker).expect("just looked at");
        for output in process.output.iter().flatten() {
            client.turns().remove(output.descriptor());
        }
        let why = process.last_words();
        match process.client {
            Some(gone) => self.step(client, Event::ClientDown { client: gone, why }),
            None => self.step(client, Event::WorkerFailed { worker, why }),
        }
    }

    pub(super) fn print(&mut self, client: &Arc<Client>, worker: WorkerId, stream: usize) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let Some(output) = &mut process.output[stream] else { return };
        let (pid, driver, is_error) = (process.pid, process.driver, stream == 1);
        let mut lines = Vec::new();
        output.read(|line| lines.push(line.to_owned()));
        // Of a driver that has left, it is ours.
        if driver != OWN && self.by_client.contains_key(&driver) {
            for line in &lines {
                self.send_to(client, driver, |peer, _| peer.send(&Record::Printed { pid, is_error, line }));
            }
            return self.flush(client);
        }
        for line in lines {
            self.printed.push(Printed { pid, is_error, line });
        }
    }

    /// Lines that workers printed since this was last asked for; `bell` is rung when there are more.
    pub(crate) fn take_printed(&mut self, bell: &Arc<List>) -> Vec<Printed> {
        self.printed.take(bell)
    }

    /// A worker works for a client from now on: for a driver, or whoever that worker works for.
    pub(super) fn works_for(&mut self, worker: ClientId, client: ClientId) {
        let worker_of = |home: &Self, client| {
            let &index = home.by_client.get(&client)?;
            home.peers[index].as_ref()?.worker
        };
        let driver = match worker_of(self, client) {
            Some(other) => self.processes.get(&other).map_or(OWN, |process| process.driver),
            None => client,
        };
        if let Some(process) = worker_of(self, worker).and_then(|worker| self.processes.get_mut(&worker)) {
            process.driver = driver;
        }
    }

    /// Each worker: its name, process, environment, whether it is there, what it has printed last.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (WorkerId, u32, u64, Option<ClientId>)> {
        self.processes.iter().map(|(&id, process)| (id, process.pid, process.environment, process.client))
    }

    /// What an actor calls itself, as its worker told.
    pub(crate) fn set_title(&mut self, from: ClientId, title: String) {
        if let Some(process) = self.processes.values_mut().find(|process| process.client == Some(from)) {
            process.title = Some(title);
        }
    }

    /// What a worker's actor calls itself, if it told.
    pub(crate) fn title(&self, worker: WorkerId) -> Option<&str> {
        self.processes.get(&worker)?.title.as_deref()
    }
}
