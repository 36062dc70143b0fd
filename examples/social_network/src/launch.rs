//! The processes: a memory node and the twelve services, each after those that it calls.

use crate::call::Role;
use crate::host::{Part, Setup, Wire};
use dmrpc_turns::process::Process;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How the services talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Actors,
    #[cfg(feature = "compare")]
    Grpc,
}

/// What of a network is not its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    /// Friendships, instead of those that are made.
    pub(crate) graph: Option<PathBuf>,
    /// The server that keeps its data, instead of the services themselves.
    pub(crate) database: Option<String>,
}

/// The network, as long as it runs.
pub(crate) struct Network {
    /// Where the memory node is, if there is one.
    pub(crate) store: Option<String>,
    /// Where each service is.
    pub(crate) services: HashMap<Role, String>,
    // End in this order, before the folder goes.
    _processes: Vec<Process>,
    _node: Option<Process>,
    _folder: TempDir,
}

impl Network {
    /// Starts everything.
    pub(crate) fn start(transport: Transport, pool_bytes: u64, outside: &Outside) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("social-").tempdir()?;
        let address = |name: &str| format!("unix://{}", folder.path().join(format!("{name}.sock")).display());
        let node = match transport {
            Transport::Actors => Some(start(&Part::MemoryNode { listen: address("node"), pool_bytes })?),
            #[cfg(feature = "compare")]
            Transport::Grpc => None,
        };
        let mut services: HashMap<Role, String> = HashMap::new();
        let mut processes = Vec::new();
        for role in Role::ALL {
            let others = role.calls().iter().map(|&other| (other, services[&other].clone())).collect();
            let wire = match (transport, &node) {
                (Transport::Actors, Some(node)) => {
                    Wire::Actors { listen: address(&format!("{role:?}")), store: node.url().to_owned(), others }
                }
                #[cfg(feature = "compare")]
                (Transport::Grpc, _) => Wire::Grpc { others },
                (Transport::Actors, None) => unreachable!("it was started above"),
            };
            let Outside { graph, database } = outside.clone();
            let setup = Setup { folder: own_folder(folder.path(), role)?, database, graph };
            let process = start(&Part::Service { role, setup, wire })?;
            services.insert(role, process.url().to_owned());
            processes.push(process);
        }
        // Callers end before those that they call.
        processes.reverse();
        Ok(Self {
            store: node.as_ref().map(|node| node.url().to_owned()),
            services,
            _processes: processes,
            _node: node,
            _folder: folder,
        })
    }
}

fn start(part: &Part) -> anyhow::Result<Process> {
    Ok(Process::start(&["--part", &serde_json::to_string(part)?])?)
}

fn own_folder(folder: &Path, role: Role) -> std::io::Result<PathBuf> {
    let own = folder.join(format!("{role:?}-data"));
    std::fs::create_dir(&own)?;
    Ok(own)
}
