//! What the device does without us: a socket or a burst loop, two processes that spin; and `memcpy`.

use crate::row::{Row, Sample};
use anyhow::{Context, Result};
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SMALL_BYTES: usize = 64;
const BULK_BYTES: usize = 1 << 20;
const LEAST: u64 = 20;

/// Copies within this process, beyond its caches and within them.
pub(crate) fn memcpy(turn: Duration) -> Vec<Row> {
    let source = vec![7u8; 256 << 20];
    let mut target = vec![0u8; 256 << 20];
    [64usize, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20]
        .into_iter()
        .map(|size| {
            let places = source.len() / size;
            // Few clocks for small ones: a thousand copies between two.
            let batch = (64 << 10 >> 6) / (size >> 6).clamp(1, 1024);
            let (mut sample, mut at) = (Sample::new(), 0);
            let start = Instant::now();
            let mut copied = 0u64;
            while start.elapsed() < turn || sample.count() < LEAST {
                let begun = Instant::now();
                for _ in 0..batch {
                    at = (at + 1) % places;
                    target[at * size..][..size].copy_from_slice(black_box(&source[at * size..][..size]));
                }
                copied += batch as u64;
                sample.add(begun.elapsed() / batch as u32);
            }
            let took = start.elapsed();
            let mut row = sample.row("memory", "bare copy", size as u64, 1, took);
            row.per_second = copied as f64 / took.as_secs_f64();
            row.bytes_per_second = row.per_second * size as f64;
            row
        })
        .collect()
}

/// Echoes over TCP and UDP at the same port, until the TCP peer hangs up.
pub(crate) fn serve_sockets() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let udp = UdpSocket::bind(address)?;
    udp.set_nonblocking(true)?;
    crate::ready(&address);
    let (mut tcp, _) = listener.accept()?;
    tcp.set_nodelay(true)?;
    tcp.set_nonblocking(true)?;
    let mut buffer = vec![0u8; BULK_BYTES];
    loop {
        if let Ok((len, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&buffer[..len], from)?;
        }
        match tcp.read(&mut buffer[..SMALL_BYTES]) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                // The first byte says how much is wanted.
                let wanted = if buffer[0] == 0 { len } else { BULK_BYTES };
                write_all(&mut tcp, &buffer[..wanted])?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_all(tcp: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match tcp.write(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Round trips over both, and bulk over TCP.
pub(crate) fn ask_sockets(address: &str, turn: Duration) -> Result<Vec<Row>> {
    let address: SocketAddr = address.parse()?;
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_nonblocking(true)?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(address)?;
    udp.set_nonblocking(true)?;
    let mut buffer = vec![0u8; BULK_BYTES];
    let mut rows = Vec::new();
    for (fabric, wanted) in [("udp", 0), ("tcp", 0), ("tcp", 1)] {
        let mut sample = Sample::new();
        let start = Instant::now();
        while start.elapsed() < turn || sample.count() < LEAST {
            let begun = Instant::now();
            let question = [wanted; SMALL_BYTES];
            if fabric == "udp" {
                udp.send(&question)?;
            } else {
                write_all(&mut tcp, &question)?;
            }
            let mut left = if wanted == 0 { SMALL_BYTES } else { BULK_BYTES };
            while left > 0 {
                let read = if fabric == "udp" { udp.recv(&mut buffer) } else { tcp.read(&mut buffer) };
                match read {
                    Ok(len) => left = left.checked_sub(len.max(1)).context("more than was asked for")?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            sample.add(begun.elapsed());
        }
        let size = if wanted == 0 { SMALL_BYTES } else { BULK_BYTES };
        rows.push(sample.row(fabric, "bare message", size as u64, 1, start.elapsed()));
    }
    Ok(rows)
}

/// What iperf3 moves over the loopback device, one stream, both ends on cores of their own; nothing where it is not installed.
pub(crate) fn iperf3(turn: Duration) -> Result<Vec<Row>> {
    let has = Command::new("iperf3").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("iperf3: skipped: not installed (Debian: iperf3)");
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for (fabric, size, kind) in [("tcp", 128u64 << 10, &[][..]), ("udp", 65_507, &["-u", "-b", "0", "-l", "65507"][..])]
    {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut server = Command::new("iperf3");
        let mut server = server
            .args(["-s", "-1", "-p", &port, "-A", &crate::core(0).to_string()])
            .stdout(Stdio::null())
            .spawn()
            .context("starting iperf3")?;
        // Its client does not wait for a server that starts.
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = loop {
            let mut client = Command::new("iperf3");
            client.args(["-c", "127.0.0.1", "-p", &port, "-J", "-t", &turn.as_secs().max(1).to_string()]);
            client.args(["-A", &crate::core(1).to_string()]).args(kind);
            let output = client.output().context("starting iperf3")?;
            // A warning may come before it.
            let begin = output.stdout.iter().position(|&byte| byte == b'{').unwrap_or(0);
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout[begin..]).unwrap_or_default();
            if output.status.success() || Instant::now() > deadline {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let _ = server.kill();
        server.wait()?;
        // What arrived, not what was sent.
        let bits = answer.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
        let bytes_per_second = bits.context("iperf3 said nothing")? / 8.0;
        rows.push(Row {
            fabric: fabric.to_owned(),
            what: "iperf3".to_owned(),
            size,
            depth: 1,
            p50_us: 0.0,
            p99_us: 0.0,
            per_second: bytes_per_second / size as f64,
            bytes_per_second,
        });
    }
    Ok(rows)
}

#[cfg(feature = "dpdk")]
pub(crate) use burst::{ask as ask_bursts, serve as serve_bursts};

/// The burst loop of DPDK: frames there and back, no protocol.
#[cfg(feature = "dpdk")]
mod burst {
    use super::{LEAST, Row, Sample};
    use anyhow::{Result, bail};
    use dmrpc_dpdk_sys as sys;
    use std::ffi::{CString, c_void};
    use std::time::{Duration, Instant};

    const BURST: usize = 32;
    const ETHERNET_BYTES: usize = 14;
    const MARK: [u8; 2] = [0x88, 0xb5];

    struct Device {
        port: *mut sys::Port,
        queue: *mut sys::Queue,
        frames: [sys::RxFrame; BURST],
        waiting: [sys::TxFrame; BURST],
        count: usize,
    }

    impl Device {
        fn start() -> Result<Self> {
            let eal = std::env::var("DMRPC_DPDK_EAL")?;
            let mtu: u32 = std::env::var("DMRPC_DPDK_MTU")?.parse()?;
            let arguments = std::iter::once("dmrpc-micro").chain(eal.split_whitespace());
            let mut arguments: Vec<*mut std::ffi::c_char> =
                arguments.map(|argument| CString::new(argument).map(CString::into_raw)).collect::<Result<_, _>>()?;
            let count = arguments.len() as i32;
            arguments.push(std::ptr::null_mut());
            // SAFETY: as many strings as are said, and a null; all are leaked.
            if unsafe { sys::dmrpc_eal_init(count, arguments.leak().as_mut_ptr()) } != 0 {
                bail!("EAL does not start");
            }
            let options = sys::PortOptions {
                rx_descriptors: 1024,
                tx_descriptors: 1024,
                frame_bytes: mtu + ETHERNET_BYTES as u32,
                rx_buffers: 8192,
                tx_buffers: 4096,
                queues: 1,
            };
            let mut info = sys::PortInfo { driver: [0; 64], mac: [0; 6], multi_segment: 0, numa_node: -1, queues: 0 };
            // SAFETY: both point to structs of the shim's layout.
            let port = unsafe { sys::dmrpc_port_start(0, &raw const options, &raw mut info) };
            if port.is_null() {
                bail!("the port does not start");
            }
            let none = sys::RxFrame { mbuf: std::ptr::null_mut::<c_void>(), start: std::ptr::null(), len: 0 };
            // SAFETY: the port runs, with one queue.
            let queue = unsafe { sys::dmrpc_port_queue(port, 0) };
            let nothing = sys::TxFrame { mbuf: std::ptr::null_mut(), start: std::ptr::null_mut(), len: 0 };
            Ok(Self { port, queue, frames: [none; BURST], waiting: [nothing; BURST], count: 0 })
        }

        fn wait(&mut self) -> Result<()> {
            let deadline = Instant::now() + Duration::from_secs(20);
            // SAFETY: the port was started.
            while unsafe { sys::dmrpc_port_is_up(self.port) } == 0 {
                if Instant::now() > deadline {
                    bail!("the port has no link");
                }
                std::thread::sleep(Duration::from_millis(20));
                // SAFETY: as above.
                if unsafe { sys::dmrpc_port_is_started(self.port) } == 0 {
                    // SAFETY: as above.
                    unsafe { sys::dmrpc_port_restart(self.port) };
                }
            }
            Ok(())
        }

        /// What came, each frame given to `look` and then back.
        fn receive(&mut self, mut look: impl FnMut(&[u8])) -> usize {
            // SAFETY: the port runs and there is room for so many.
            let count = unsafe { sys::dmrpc_rx_burst(self.queue, self.frames.as_mut_ptr(), BURST as u32) } as usize;
            for frame in &self.frames[..count] {
                // SAFETY: the frame is ours until it is freed, once.
                unsafe {
                    look(std::slice::from_raw_parts(frame.start, frame.len as usize));
                    sys::dmrpc_frame_free(frame.mbuf);
                }
            }
            count
        }

        /// Takes buffers for so many frames, at most a burst.
        fn gather(&mut self, count: usize) {
            // SAFETY: the port runs and there is room for so many.
            self.count = unsafe { sys::dmrpc_tx_alloc(self.queue, self.waiting.as_mut_ptr(), count as u32) } as usize;
        }

        /// Writes a frame of those.
        fn write(&mut self, index: usize, bytes: &[u8]) {
            if let Some(buffer) = self.waiting[..self.count].get_mut(index) {
                // SAFETY: the buffer is ours, and no frame is longer than the port's longest.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.start, bytes.len()) };
                buffer.len = bytes.len() as u32;
            }
        }

        /// Sends them.
        fn send(&mut self) {
            let mut count = std::mem::take(&mut self.count) as u32;
            // SAFETY: the buffers are ours, and were written.
            while unsafe { sys::dmrpc_tx_burst(self.queue, self.waiting.as_ptr(), count) } < 64 {
                count = 0;
            }
        }
    }

    /// Sends every frame back, until none came for a while.
    pub(crate) fn serve() -> Result<()> {
        let mut device = Device::start()?;
        crate::ready(&"bare");
        let (mut heard, mut turns) = (Instant::now(), 0u32);
        loop {
            // SAFETY: the port runs and there is room for so many.
            let count = unsafe { sys::dmrpc_rx_burst(device.queue, device.frames.as_mut_ptr(), BURST as u32) } as usize;
            if count == 0 {
                turns = turns.wrapping_add(1);
                if turns.is_multiple_of(1 << 20) && heard.elapsed() > Duration::from_secs(10) {
                    return Ok(());
                }
                continue;
            }
            device.gather(count);
            let mut ours = 0;
            for index in 0..count {
                let frame = device.frames[index];
                // SAFETY: the frame is ours until it is freed below, after it was copied.
                let bytes = unsafe { std::slice::from_raw_parts(frame.start, frame.len as usize) };
                if bytes.get(12..14) == Some(&MARK) {
                    device.write(ours, bytes);
                    ours += 1;
                }
                // SAFETY: freed once.
                unsafe { sys::dmrpc_frame_free(frame.mbuf) };
            }
            // A stranger's frame is rare, and leaves a buffer that is not sent.
            for buffer in &device.waiting[ours.min(device.count)..device.count] {
                // SAFETY: freed once.
                unsafe { sys::dmrpc_frame_free(buffer.mbuf) };
            }
            device.count = device.count.min(ours);
            device.send();
            heard = Instant::now();
        }
    }

    /// Round trips of small and large frames, one and a burst at a time.
    pub(crate) fn ask(fabric: &str, turn: Duration) -> Result<Vec<Row>> {
        let mut device = Device::start()?;
        device.wait()?;
        let mtu: usize = std::env::var("DMRPC_DPDK_MTU")?.parse()?;
        let mut rows = Vec::new();
        for (size, depth) in [(64, 1), (64, BURST), (mtu, 1), (mtu, BURST)] {
            let mut frame = vec![0u8; size];
            frame[0..6].copy_from_slice(&[0xff; 6]);
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x0c]);
            frame[12..14].copy_from_slice(&MARK);
            let mut sample = Sample::new();
            let (start, mut frames) = (Instant::now(), 0u64);
            let mut now = start;
            while now - start < turn || sample.count() < LEAST {
                let begun = Instant::now();
                device.gather(depth);
                (0..depth).for_each(|index| device.write(index, &frame));
                device.send();
                let mut left = depth;
                while left > 0 {
                    let mut came = 0;
                    device.receive(|bytes| came += usize::from(bytes.get(12..14) == Some(&MARK)));
                    left = left.saturating_sub(came);
                    // A frame that was lost is not waited for.
                    if came == 0 && begun.elapsed() > Duration::from_millis(100) {
                        left = 0;
                    }
                }
                now = Instant::now();
                frames += depth as u64;
                sample.add(now - begun);
            }
            let mut row = sample.row(fabric, "bare message", size as u64, depth as u32, now - start);
            row.per_second = frames as f64 / (now - start).as_secs_f64();
            row.bytes_per_second = row.per_second * size as f64;
            rows.push(row);
        }
        Ok(rows)
    }
}
