//! The control channel of a link: a TCP connection, over which it is set up, and whose end is that of the peer.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::net::TcpStream;
use std::time::Duration;

/// The sender's half is gone, after so many slots of bytes (u64).
const SENDER_GONE: u8 = b'E';
/// The receiver's half is gone.
const RECEIVER_GONE: u8 = b'R';

/// Has a control channel tell within seconds that its other host is gone.
pub(super) fn prepare(control: &TcpStream) -> Result<(), LinkError> {
    let prepare = || {
        sockopt::set_tcp_nodelay(control, true)?;
        sockopt::set_socket_keepalive(control, true)?;
        sockopt::set_tcp_keepidle(control, Duration::from_secs(2))?;
        sockopt::set_tcp_keepintvl(control, Duration::from_secs(1))?;
        sockopt::set_tcp_keepcnt(control, 3)?;
        sockopt::set_tcp_user_timeout(control, 5_000)?;
        rustix::io::ioctl_fionbio(control, true)
    };
    prepare().map_err(|error| LinkError::io("preparing a control channel", error))
}

/// Says something on a control channel, whose buffer has room for all that is ever said on it.
pub(super) fn say(control: &TcpStream, bytes: &[u8]) -> Result<(), LinkError> {
    match send(control, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) | Err(Errno::AGAIN) => Err(LinkError::Closed),
        Err(error) => Err(LinkError::socket("talking on a control channel", error)),
    }
}

/// Says that the half that sends is gone, after so many slots of bytes.
pub(super) fn say_sender_gone(control: &TcpStream, slots: u64) {
    let mut message = [SENDER_GONE; 9];
    message[1..].copy_from_slice(&slots.to_le_bytes());
    // A peer that is gone need not know.
    let _ = say(control, &message);
}

/// Says that the half that receives is gone.
pub(super) fn say_receiver_gone(control: &TcpStream) {
    let _ = say(control, &[RECEIVER_GONE]);
}

/// What the peer has said of its end.
#[derive(Default)]
pub(super) struct Farewells {
    /// What came of something.
    heard: Vec<u8>,
    /// The peer sends no more than so many slots of bytes.
    pub(super) peer_end: Option<u64>,
    /// The peer's receiver is not there any more.
    pub(super) deaf: bool,
    /// Nor is anything else of it.
    pub(super) peer_gone: bool,
}

impl Farewells {
    /// Hears what was said on the control channel. Whether there was anything.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn hear(&mut self, control: &TcpStream) -> Result<bool, &'static str> {
        let mut news = false;
        while !self.peer_gone {
            let mut buffer = [0; 32];
            match recv(control, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, count @ 1..)) => self.heard.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Ok((_, 0)) | Err(_) => self.peer_gone = true,
            }
            news = true;
            self.understand()?;
        }
        Ok(news)
    }

    fn understand(&mut self) -> Result<(), &'static str> {
        loop {
            match *self.heard {
                [SENDER_GONE, a, b, c, d, e, f, g, h, ..] => {
                    self.peer_end = Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
                    self.heard.drain(..9);
                }
                [RECEIVER_GONE, ..] => {
                    self.deaf = true;
                    self.heard.drain(..1);
                }
                [] | [SENDER_GONE, ..] => return Ok(()),
                _ => return Err("something else on a control channel"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farewells_in_pieces() {
        let mut farewells = Farewells::default();
        let mut bytes = vec![RECEIVER_GONE, SENDER_GONE];
        bytes.extend(77u64.to_le_bytes());
        for byte in bytes {
            assert_eq!(farewells.peer_end, None);
            farewells.heard.push(byte);
            farewells.understand().unwrap();
        }
        assert!(farewells.deaf && farewells.peer_end == Some(77) && farewells.heard.is_empty());
        farewells.heard.push(b'?');
        assert!(farewells.understand().is_err());
    }
}
