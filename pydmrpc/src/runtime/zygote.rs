//! The process that workers are forked from, as the hub sees it.
//!
//! ```text
//! to the zygote    "C" settings                                         once, first
//!                  "F" worker: u32, secret: u64, environment: u64, its definition…   and two descriptors: standard output and error
//! from the zygote  "S" worker: u32, process: u32                        and a descriptor of the process
//!                  "E" worker: u32, status: i32                         exit code, or minus the signal
//! ```
//!
//! One message a packet, numbers little endian. `python/pydmrpc/_zygote.py` is the other side.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The longest message of the zygote's.
const MAX_BYTES: usize = 64;

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The Python interpreter.
    pub(crate) python: String,
    /// What it is told first.
    pub(crate) settings: Vec<u8>,
}

/// A zygote, from its start to its end.
pub(crate) struct Zygote {
    child: Child,
    socket: OwnedFd,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// What it says.
pub(crate) enum News {
    /// A worker was forked.
    Started { worker: u32, pid: u32, process: OwnedFd },
    /// A worker ended.
    Ended { worker: u32, status: i32 },
    /// The zygote itself ended.
    Gone,
}

impl Zygote {
    /// Starts one.
    pub(crate) fn start(recipe: &Recipe) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let mut command = Command::new(&recipe.python);
        // A group of its own: an interrupt at the terminal is for the driver.
        command.args(["-m", "pydmrpc._zygote"]).stdin(Stdio::from(theirs)).process_group(0);
        let child = command.spawn()?;
        let mut settings = vec![b'C'];
        settings.extend_from_slice(&recipe.settings);
        let mut zygote = Self { child, socket, queue: VecDeque::new() };
        zygote.send(settings, Vec::new());
        Ok(zygote)
    }

    /// The descriptor that says that there are news.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has a worker forked.
    pub(crate) fn fork(&mut self, worker: u32, secret: u64, environment: u64, definition: &[u8], out: [OwnedFd; 2]) {
        let mut message = vec![b'F'];
        message.extend_from_slice(&worker.to_le_bytes());
        message.extend_from_slice(&secret.to_le_bytes());
        message.extend_from_slice(&environment.to_le_bytes());
        message.extend_from_slice(definition);
        self.send(message, out.into());
    }

    fn send(&mut self, message: Vec<u8>, descriptors: Vec<OwnedFd>) {
        self.queue.push_back((message, descriptors));
        self.push();
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn push(&mut self) {
        while let Some((message, descriptors)) = self.queue.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(message)], &mut control, flags) {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // Sent, or nobody is there to read it: that is heard of when it is read from.
                _ => drop(self.queue.pop_front()),
            }
        }
    }

    /// The next thing that it says.
    pub(crate) fn news(&mut self) -> Option<News> {
        let mut bytes = [0; MAX_BYTES];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(News::Gone),
                Ok(received) => break received.bytes,
            }
        };
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let mut descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let process = descriptors.next().and_then(|mut descriptors| descriptors.next());
        match (bytes[0], received, process) {
            (b'S', 9, Some(process)) => Some(News::Started { worker: number(1), pid: number(5), process }),
            (b'E', 9, _) => Some(News::Ended { worker: number(1), status: number(5).cast_signed() }),
            // Also what makes no sense.
            _ => Some(News::Gone),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // It has nothing that it would have to finish; its workers go by themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
