//! Who is at the other end of a Unix socket, as the kernel vouches for it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// A process and its user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credentials {
    /// 0 if the process is of another pid namespace, which this one can't look into.
    pub(super) pid: u32,
    pub(super) uid: u32,
}

/// Who connected, or listened. By `libc`, as `rustix` has a type for it in which a pid of 0 is undefined behaviour.
pub(super) fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut found = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to where there is place for as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            found.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers, of which any will do; zeros where the kernel wrote none.
    let found = unsafe { found.assume_init() };
    Ok(Credentials { pid: found.pid.unsigned_abs(), uid: found.uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_who_we_are() {
        let (socket, _twin) = std::os::unix::net::UnixStream::pair().unwrap();
        let found = credentials(&socket).unwrap();
        assert_eq!((found.pid, found.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
        assert!(credentials(std::fs::File::open("/proc/self/exe").unwrap()).is_err());
    }
}
