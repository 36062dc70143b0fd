//! Real processes to be killed: the test program once more, in a role.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

const ROLE: &str = "DMRPC_TEST_ROLE";
const ARGUMENT: &str = "DMRPC_TEST_ARGUMENT";

/// The role that this process is to play, and its argument.
pub(crate) fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var(ARGUMENT).unwrap_or_default()))
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().expect("this program is a file")
}

/// What the player of a role has to tell.
pub(crate) fn tell(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\ntold: {line}").and_then(|()| out.flush()).expect("somebody listens");
}

/// Plays until it is killed.
pub(crate) fn play_on() -> ! {
    loop {
        std::thread::park();
    }
}

/// A process in a role; killed when it is dropped.
pub(crate) struct Player {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Player {
    /// Starts the test `name` of this program, which is to look at its [`role`].
    pub(crate) fn start(name: &str, role: &str, argument: &str) -> Self {
        Self::start_by(&mut Command::new(this_program()), name, role, argument)
    }

    /// As [`start`](Player::start), in a mount namespace of its own.
    pub(crate) fn start_in_own_mounts(name: &str, role: &str, argument: &str) -> Self {
        Self::start_by(Command::new("unshare").args(["--mount", "--"]).arg(this_program()), name, role, argument)
    }

    fn start_by(program: &mut Command, name: &str, role: &str, argument: &str) -> Self {
        let mut child = program
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The next thing that it tells.
    pub(crate) fn told(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).expect("a pipe can be read") > 0, "the player ended early");
            if let Some(told) = line.trim_end().strip_prefix("told: ") {
                return told.to_owned();
            }
        }
    }

    /// Says something to it.
    pub(crate) fn say(&mut self, line: &str) {
        use std::io::Write;
        let mut to = self.child.stdin.as_ref().expect("it is piped");
        writeln!(to, "{line}").expect("it listens");
    }

    /// Stops it, or lets it go on.
    pub(crate) fn stop(&self, stop: bool) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = if stop { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(pid, signal).expect("it is ours");
    }

    /// Kills it, as nothing can be prepared for.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
