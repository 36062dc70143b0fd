//! Links to and from addresses.
#![forbid(unsafe_code)]

use crate::address::Address;
use crate::datagram;
use crate::inproc;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use crate::rdma;
use crate::shm::setup;
use crate::tcp;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_socket, socket_with};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Accepts links at an address.
///
/// ```
/// use dmrpc_fabric::listen::{Listener, connect};
/// use std::time::{Duration, Instant};
///
/// let options = Default::default();
/// let mut listener = Listener::bind(&"inproc://doc".parse()?, &options)?;
/// let there = connect(&listener.address(), &options, Instant::now() + Duration::from_secs(1))?;
/// let here = listener.try_accept()?.expect("somebody connected");
/// # Ok::<(), dmrpc_fabric::link::LinkError>(())
/// ```
pub struct Listener {
    kind: Kind,
    options: LinkOptions,
}

enum Kind {
    Unix { listener: UnixListener, file: SocketFile },
    Tcp(tcp::Acceptor),
    Datagram(datagram::Acceptor),
    Rdma(rdma::Acceptor),
    InProcess(inproc::Acceptor),
}

impl Listener {
    /// Listens. A socket file that a dead process left behind is replaced.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the address is in use (by a living process, for a socket file) or can't be listened at.
    pub fn bind(address: &Address, options: &LinkOptions) -> Result<Self, LinkError> {
        let kind = match address {
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                Kind::Unix { listener, file }
            }
            Address::Tcp { host, port } => Kind::Tcp(tcp::Acceptor::bind(host, *port, options)?),
            Address::Tls { host, port, files } => Kind::Tcp(tcp::Acceptor::bind_tls(host, *port, files, options)?),
            Address::Udp { host, port } => Kind::Datagram(datagram::Acceptor::bind_udp(host, *port, options)?),
            Address::Dpdk(address) => Kind::Datagram(datagram::Acceptor::bind_dpdk(*address, options)?),
            Address::Rdma { host, port, through } => Kind::Rdma(rdma::Acceptor::bind(host, *port, through, options)?),
            Address::InProcess(name) => Kind::InProcess(inproc::Acceptor::bind(name, options)?),
        };
        Ok(Self { kind, options: options.clone() })
    }

    /// The next link, if somebody connected. Never waits, whatever those who connect do.
    ///
    /// Over UDP and DPDK this also moves the links that were accepted: ask whenever the descriptor is ready, as long as they live.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if a peer could not be accepted, by its fault or for want of descriptors. The listener goes on.
    pub fn try_accept(&mut self) -> Result<Option<Link>, LinkError> {
        match &mut self.kind {
            Kind::Unix { listener, .. } => loop {
                return match listener.accept() {
                    Ok((socket, _)) => setup::offer(socket.into(), &self.options).map(Some),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                        continue;
                    }
                    Err(error) => Err(LinkError::io("accepting a link", error)),
                };
            },
            Kind::Tcp(acceptor) => acceptor.try_accept(&self.options),
            Kind::Datagram(acceptor) => acceptor.try_accept(),
            Kind::Rdma(acceptor) => acceptor.try_accept(&self.options),
            Kind::InProcess(acceptor) => Ok(acceptor.try_accept()),
        }
    }

    /// Whether links are best moved by a loop that calls [`poll`](Self::poll): they come over a device that no kernel waits for.
    pub fn is_polled(&self) -> bool {
        matches!(&self.kind, Kind::Datagram(acceptor) if acceptor.is_polled())
    }

    /// Moves the links that were accepted and that [`is_polled`](Self::is_polled) speaks of, and adds the
    /// [tags](crate::link::Receiver::tag) of those for which there is something; until [`sleep`](Self::sleep) no bell rings for
    /// them. Whether anything came, if only a part of something; then there may be somebody to accept as well.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    pub fn poll(&mut self, ready: &mut Vec<u64>) -> Result<bool, LinkError> {
        match &mut self.kind {
            Kind::Datagram(acceptor) if acceptor.is_polled() => acceptor.poll(ready),
            _ => Ok(false),
        }
    }

    /// Says that the caller waits on descriptors from now on. `false` if there is something to do first.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    pub fn sleep(&mut self) -> Result<bool, LinkError> {
        match &mut self.kind {
            Kind::Datagram(acceptor) if acceptor.is_polled() => acceptor.sleep(),
            _ => Ok(true),
        }
    }

    /// Waits for the next link.
    ///
    /// # Errors
    ///
    /// As [`try_accept`](Self::try_accept), and [`LinkError::Deadline`].
    pub fn accept(&mut self, deadline: Instant) -> Result<Link, LinkError> {
        loop {
            if let Some(link) = self.try_accept()? {
                return Ok(link);
            }
            crate::wait::wait(&[crate::link::Interest { fd: self.as_fd(), writable: false }], deadline)?;
        }
    }

    /// Where it listens: with the real port, where port 0 was asked for.
    pub fn address(&self) -> Address {
        match &self.kind {
            Kind::Unix { file, .. } => Address::Unix(file.path.clone()),
            Kind::Tcp(acceptor) => acceptor.address(),
            Kind::Datagram(acceptor) => acceptor.address(),
            Kind::Rdma(acceptor) => acceptor.address(),
            Kind::InProcess(acceptor) => acceptor.address(),
        }
    }
}

impl AsFd for Listener {
    /// The descriptor to wait on (readable) before [`try_accept`](Self::try_accept).
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Unix { listener, .. } => listener.as_fd(),
            Kind::Tcp(acceptor) => acceptor.as_fd(),
            Kind::Datagram(acceptor) => acceptor.as_fd(),
            Kind::Rdma(acceptor) => acceptor.as_fd(),
            Kind::InProcess(acceptor) => acceptor.as_fd(),
        }
    }
}

/// Connects. Blocks until the deadline at most.
///
/// # Errors
///
/// [`LinkError::Deadline`]; [`LinkError::Refused`] if one side does not allow the other's user, or does not accept its certificate;
/// [`LinkError::Certificate`] if this side does not accept the other's; [`LinkError::Io`] if nobody listens there.
pub fn connect(address: &Address, options: &LinkOptions, deadline: Instant) -> Result<Link, LinkError> {
    match address {
        Address::Unix(path) => setup::take(connect_unix(path, deadline)?, options, deadline),
        Address::Tcp { host, port } => tcp::connect(host, *port, options, deadline),
        Address::Tls { host, port, files } => tcp::connect_tls(host, *port, files, options, deadline),
        Address::Udp { host, port } => datagram::connect_udp(host, *port, options, deadline),
        Address::Dpdk(address) => datagram::connect_dpdk(*address, options, deadline),
        Address::Rdma { host, port, through } => rdma::connect(host, *port, through, options, deadline),
        Address::InProcess(name) => inproc::connect(name, options),
    }
}

/// A socket file that we made; removed on drop, if it is still that one.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = lock_directory(&self.path);
        if std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Keeps others of us from judging the files in the directory of `path` while we do. Released on drop.
fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let directory = open(path.parent()?, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    flock(&directory, FlockOperation::LockExclusive).ok()?;
    Some(directory)
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), LinkError> {
    let failed = |error: std::io::Error| LinkError::io("listening at a Unix socket", error);
    let _lock = lock_directory(path);
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path)
        }
        other => other,
    }
    .map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let made = std::fs::symlink_metadata(path).map_err(failed)?;
    Ok((listener, SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() }))
}

/// Whether `path` is a socket that nobody listens at.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused =
        |error| matches!(error, LinkError::Io { source, .. } if source.kind() == ErrorKind::ConnectionRefused);
    is_socket && connect_unix(path, Instant::now() + Duration::from_millis(100)).err().is_some_and(refused)
}

fn connect_unix(path: &Path, deadline: Instant) -> Result<OwnedFd, LinkError> {
    let failed = |error: Errno| LinkError::io("connecting to a Unix socket", error);
    let started = Instant::now();
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    loop {
        // A socket connects at once or waits for a place in the queue of the listener, for as long as it may send.
        let left = deadline.saturating_duration_since(Instant::now());
        let late = || LinkError::Deadline(deadline.saturating_duration_since(started));
        if left.is_zero() {
            return Err(late());
        }
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(left.max(Duration::from_micros(1))))
            .map_err(failed)?;
        match connect_socket(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(late()),
            Err(error) => return Err(failed(error)),
        }
    }
}
