//! Runs a node until it is told to end.

use anyhow::{Context, bail};
use dmrpc_fabric::Allow;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::datagram::dpdk::{self, DEFAULT_MTU, DEFAULT_QUEUES, DpdkOptions};
use dmrpc_memnode::{Hugepages, Node, NodeConfig};
use dmrpc_pages::{ByteSize, PageSize};
use dmrpc_wire::Coherence;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The hard limit of memory.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pool: ByteSize,
    /// The unit of copy-on-write: a power of two from 4KiB to 2MiB.
    #[arg(long, value_name = "SIZE", default_value = "4KiB")]
    page: PageSize,
    /// Where clients find the node: unix:///path, tcp://host:port, tls://host:port?cert=FILE&key=FILE, udp://host:port,
    /// dpdk://address:port or rdma://host:port. May be given more than once.
    #[arg(long, value_name = "URL", required = true)]
    listen: Vec<Address>,
    /// What pages the pool is made of.
    #[arg(long, value_enum, default_value_t)]
    hugepages: HugepagesArg,
    /// A file or /dev/dax device to take the pool from. It has one tenant.
    #[arg(long, value_name = "PATH")]
    pool_file: Option<PathBuf>,
    /// What keeps the pool file the same for all who map it.
    #[arg(long, value_enum, default_value_t, requires = "pool_file")]
    coherence: CoherenceArg,
    /// What a tenant says to be let in; each token is a tenant of its own. May be given more than once. Other users of this
    /// host see command lines: rather use --tenant-token-file, or DMRPC_TENANT_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    tenant_token: Vec<String>,
    /// A file with tenants' tokens, one a line.
    #[arg(long, value_name = "PATH")]
    tenant_token_file: Vec<PathBuf>,
    /// What a session may have at most; the whole pool if not given.
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
    /// A session over the network that is not renewed for so long is over.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    lease: humantime::Duration,
    /// After the end of a session its holds stand for so long.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    grace: humantime::Duration,
    /// A client that has not said hello after so long is dropped.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    handshake: humantime::Duration,
    /// A client that takes nothing of what is sent to it for so long is cut off.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    stall: humantime::Duration,
    /// Links at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 4096)]
    max_links: usize,
    /// Sessions at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 4096)]
    max_sessions: usize,
    /// For so long after something came over DPDK the node's thread looks for more all the time, before it sleeps.
    #[arg(long, value_name = "DURATION", default_value = "100us")]
    spin: humantime::Duration,
    /// Arguments of DPDK's EAL, for dpdk:// addresses: cores, memory, devices.
    #[arg(long, value_name = "ARGUMENTS", env = "DMRPC_DPDK_EAL", allow_hyphen_values = true)]
    eal: Option<String>,
    /// The longest IP packet over DPDK, in bytes.
    #[arg(long, value_name = "BYTES", env = "DMRPC_DPDK_MTU", default_value_t = DEFAULT_MTU)]
    mtu: usize,
    /// Queues of the device over DPDK, each with a thread of its own that moves the bytes of its links; fewer if the device has not as
    /// many.
    #[arg(long, value_name = "NUMBER", env = "DMRPC_DPDK_QUEUES", default_value_t = DEFAULT_QUEUES, value_parser = clap::value_parser!(u8).range(1..=64))]
    queues: u8,
    /// The NUMA node whose memory the pool is made of.
    #[arg(long, value_name = "NODE")]
    numa: Option<u32>,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum HugepagesArg {
    /// Huge ones where the kernel can put some together.
    #[default]
    Auto,
    /// Huge ones that were set aside on this host, or do not start.
    Require,
    /// Ordinary pages only.
    Never,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum CoherenceArg {
    /// The hardware.
    #[default]
    Hardware,
    /// Its users: they write their cache lines back before they publish, and drop them before they read.
    Flush,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Before there is anything to clean up, so that no signal finds the node half started.
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("catching signals")?;
    configure_dpdk(args)?;
    let node = Node::start(config(args)?)?;
    let addresses: Vec<_> = node.addresses().iter().map(ToString::to_string).collect();
    writeln!(
        std::io::stdout(),
        "dmrpc-memnode ready: listen={} pool={} page={} memory={} node={:08x}",
        addresses.join(","),
        args.pool,
        args.page,
        node.memory(),
        node.id().0,
    )
    .context("saying that the node is ready")?;
    let signal = signals.forever().next();
    tracing::info!("the node ends on signal {}", signal.unwrap_or_default());
    node.shutdown();
    Ok(())
}

/// What DPDK is told: the first of its addresses is this host's.
fn configure_dpdk(args: &Args) -> anyhow::Result<()> {
    let addresses = args.listen.iter().filter_map(|address| match address {
        Address::Dpdk(address) => Some(*address),
        _ => None,
    });
    for address in addresses {
        let eal = args.eal.as_deref().context("a dpdk:// address needs --eal: DPDK's cores, memory and device")?;
        let eal = eal.split_whitespace().map(str::to_owned).collect();
        let udp_port = Some(address.port());
        dpdk::configure(DpdkOptions { eal, address: *address.ip(), mtu: args.mtu, udp_port, queues: args.queues })?;
    }
    Ok(())
}

fn config(args: &Args) -> anyhow::Result<NodeConfig> {
    let mut config = NodeConfig {
        pool_bytes: args.pool.bytes(),
        page_size: args.page,
        listen: args.listen.clone(),
        hugepages: match args.hugepages {
            HugepagesArg::Auto => Hugepages::Auto,
            HugepagesArg::Require => Hugepages::Require,
            HugepagesArg::Never => Hugepages::Never,
        },
        pool_file: args.pool_file.clone(),
        coherence: match args.coherence {
            CoherenceArg::Hardware => Coherence::Hardware,
            CoherenceArg::Flush => Coherence::Flush,
        },
        tenant_tokens: tokens(args)?,
        quota_bytes: args.quota.map(ByteSize::bytes),
        lease: args.lease.into(),
        grace: args.grace.into(),
        handshake: args.handshake.into(),
        stall: args.stall.into(),
        max_links: args.max_links,
        max_sessions: args.max_sessions,
        numa_node: args.numa,
        spin: args.spin.into(),
        ..NodeConfig::default()
    };
    if !config.tenant_tokens.is_empty() {
        // Then the token says who may come in, not the user.
        config.link = config.link.allow(Allow::Anyone);
    }
    Ok(config)
}

fn tokens(args: &Args) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut tokens: Vec<Vec<u8>> = args.tenant_token.iter().map(|token| token.clone().into_bytes()).collect();
    if let Some(token) = std::env::var_os("DMRPC_TENANT_TOKEN") {
        tokens.push(token.into_encoded_bytes());
    }
    for path in &args.tenant_token_file {
        tokens.extend(read_tokens(path).with_context(|| format!("the token file {}", path.display()))?);
    }
    Ok(tokens)
}

/// The tokens of a file: its lines, without space around them; empty ones and those that begin with # are skipped.
fn read_tokens(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let text = std::fs::read(path)?;
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let tokens: Vec<_> = lines.filter(|line| !line.is_empty() && line[0] != b'#').map(<[u8]>::to_vec).collect();
    if tokens.is_empty() {
        bail!("it has no token");
    }
    Ok(tokens)
}
