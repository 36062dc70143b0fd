//! What the command line says.

use clap::{Parser, ValueEnum};
use dmrpc_pages::{ByteSize, PageSize};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A seven-tier image service: client, firewall, three load balancers, dispatcher, transcode workers, each a process of its
/// own. The same load goes through it by value and by reference.
#[derive(Debug, Parser)]
#[command(name = "img-transcode", version)]
pub(crate) struct Options {
    /// Requests in a round of moving images without work on them
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) requests: u32,

    /// Requests in a round of transcoding
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) transcodes: u32,

    /// Rounds of each kind, by value and by reference in turns; the table shows their medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Requests under way at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) concurrency: u32,

    /// Transcode workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,

    /// Balancers at the second and third level, and dispatchers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) replicas: u32,

    /// A folder with JPEG and PNG files, instead of the photographs that come with the program
    #[arg(long, value_name = "DIR")]
    pub(crate) photos: Option<PathBuf>,

    /// Where the transcoded images go
    #[arg(long, value_name = "DIR", default_value = "out/img_transcode")]
    pub(crate) out: PathBuf,

    /// The longer side of a transcoded image in pixels
    #[arg(long, default_value_t = 640, value_parser = clap::value_parser!(u32).range(16..=16384))]
    pub(crate) side: u32,

    /// Move images of these sizes as well, such as 4KiB,64KiB,1MiB
    #[arg(long, value_name = "SIZE", value_delimiter = ',')]
    pub(crate) size: Vec<ByteSize>,

    /// The size of a page, the unit of copy-on-write
    #[arg(long, value_name = "SIZE", default_value_t = PageSize::MIN)]
    pub(crate) page: PageSize,

    /// The memory node's pool
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(512 << 20))]
    pub(crate) pool: ByteSize,

    /// How images travel
    #[arg(long, value_delimiter = ',', default_value = "value,ref")]
    pub(crate) systems: Vec<Passing>,

    /// How the processes are connected
    #[arg(long, value_enum, default_value_t = Link::Unix)]
    pub(crate) link: Link,

    /// Only move images: leave out the rounds of transcoding
    #[arg(long)]
    pub(crate) payload_only: bool,

    /// Write all figures to a file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// No progress bar
    #[arg(long, short)]
    pub(crate) quiet: bool,

    /// Take turns in a comparison: orders on standard input, answers on standard output.
    #[cfg(feature = "compare")]
    #[arg(long, hide = true)]
    pub(crate) turns: bool,

    /// Play one tier: how this program starts itself.
    #[arg(long, hide = true, value_name = "JSON")]
    pub(crate) tier: Option<String>,
}

/// How an image travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Passing {
    /// In the message.
    Value,
    /// In pages of the memory node; the message has a reference.
    #[value(name = "ref", alias = "reference")]
    Reference,
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Value => "by value",
            Self::Reference => "by reference",
        })
    }
}

/// How the processes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Link {
    /// Rings in shared memory, set up over Unix sockets.
    Unix,
    /// TCP over the loopback interface, the memory node too.
    Tcp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        Options::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_people_write() {
        let options = parsed("img-transcode").unwrap();
        assert_eq!(options.systems, [Passing::Value, Passing::Reference]);
        let options =
            parsed("img-transcode --systems ref --size 4KiB,1MiB --page 64KiB --link tcp --json out.json").unwrap();
        assert_eq!(options.systems, [Passing::Reference]);
        assert_eq!(options.size, [ByteSize(4 << 10), ByteSize(1 << 20)]);
        assert_eq!((options.page.bytes(), options.link), (64 << 10, Link::Tcp));
    }

    #[test]
    fn what_can_not_be() {
        for (line, named) in [
            ("img-transcode --requests 0", "--requests"),
            ("img-transcode --page 5000", "a page cannot have 5000 bytes"),
            ("img-transcode --size 4KB", "is no size"),
            ("img-transcode --systems both", "--systems"),
            ("img-transcode --workers 65", "--workers"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
