//! What a worker prints, line by line.

use super::completions::List;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Lines that are kept to be told when the worker ends.
const LAST_LINES: usize = 10;
/// A longer line is cut.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Bytes that are read before others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// Lines that wait for the driver to print them; older ones are dropped.
const MAX_PRINTED: usize = 10_000;

/// A line of a worker's.
pub(crate) struct Printed {
    pub(crate) pid: u32,
    pub(crate) is_error: bool,
    pub(crate) line: String,
}

/// Lines on their way to whoever prints them.
#[derive(Default)]
pub(crate) struct Lines {
    lines: VecDeque<Printed>,
    bell: Option<Arc<List>>,
}

impl Lines {
    /// One more.
    pub(crate) fn push(&mut self, line: Printed) {
        if self.lines.len() == MAX_PRINTED {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        if let Some(bell) = &self.bell
            && self.lines.len() == 1
        {
            bell.push(0);
        }
    }

    /// All of them; `bell` is rung when there are more.
    pub(crate) fn take(&mut self, bell: &Arc<List>) -> Vec<Printed> {
        self.bell = Some(bell.clone());
        self.lines.drain(..).collect()
    }
}

/// The end of a pipe into which a worker prints.
pub(crate) struct Output {
    pipe: OwnedFd,
    line: Vec<u8>,
    last: VecDeque<String>,
}

impl Output {
    /// A pipe: our end, and the worker's.
    pub(crate) fn pipe() -> std::io::Result<(Self, OwnedFd)> {
        let (pipe, end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok((Self { pipe, line: Vec::new(), last: VecDeque::new() }, end))
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Reads what there is and gives whole lines to `take`; what remains without an end when the pipe has ended is one, too.
    pub(crate) fn read(&mut self, mut take: impl FnMut(&str)) {
        let mut buffer = [0; 8192];
        let mut left = TURN_BYTES;
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => {
                    if !self.line.is_empty() {
                        self.end_line(&mut take);
                    }
                    return;
                }
                Ok(count) => {
                    for piece in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
                        let (text, ended) = match piece.split_last() {
                            Some((b'\n', text)) => (text, true),
                            _ => (piece, false),
                        };
                        let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
                        self.line.extend_from_slice(&text[..text.len().min(room)]);
                        if ended {
                            self.end_line(&mut take);
                        }
                    }
                    left = left.saturating_sub(count);
                    if left == 0 {
                        // The edge that says that there is more was seen: the pipe is read to its end at the worker's, or with
                        // the next line.
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn end_line(&mut self, take: &mut impl FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        take(&line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The last lines.
    pub(crate) fn last_lines(&self) -> impl ExactSizeIterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
