//! Other processes of a system: a program, started again. It says where it listens, and ends when its standard input does: with
//! whoever started it, whatever ends that.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use tokio::sync::oneshot;

/// Has the C library keep what large messages took, instead of giving it back to the kernel and faulting it in again for the next:
/// what comes by value is received into such memory, and is not to look slower than it could be.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1073741824"), ("MALLOC_TRIM_THRESHOLD_", "1073741824")];

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    url: String,
    child: Child,
}

impl Process {
    /// Starts this very program with these arguments, and waits until it says where it listens.
    ///
    /// # Errors
    ///
    /// If it can't be started, or ends before it is ready.
    pub fn start(arguments: &[&str]) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .envs(ALLOCATOR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        let output = child.stdout.take().expect("piped");
        let mut process = Self { url: String::new(), child };
        BufReader::new(output).read_line(&mut url)?;
        url.trim().clone_into(&mut process.url);
        if process.url.is_empty() {
            return Err(std::io::Error::other(format!("a process ended as it began: {arguments:?}")));
        }
        Ok(process)
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Tells whoever started this process that it is ready, and where it listens.
///
/// # Errors
///
/// If nobody reads it.
pub fn ready(url: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{url}")?;
    output.flush()
}

/// When a process is to end.
#[derive(Debug)]
pub struct Stop(oneshot::Receiver<()>);

impl Stop {
    /// With its standard input: whoever started it wants it to end, or is no more.
    pub fn with_input() -> Self {
        let (ended, told) = oneshot::channel();
        std::thread::spawn(move || {
            // An error is an end as well.
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
            // Nobody waits for it if this process ends by itself.
            ended.send(()).ok();
        });
        Self(told)
    }

    /// Waits for it.
    pub async fn wait(self) {
        // Either way it is over.
        self.0.await.ok();
    }

    /// Waits for it, outside of any runtime.
    pub fn wait_blocking(self) {
        self.0.blocking_recv().ok();
    }
}
