//! The device, port and domains of this process.

use super::heap::Heap;
use crate::address::AdapterChoice;
use crate::link::LinkError;
use crate::options::LinkOptions;
use dmrpc_rdma_sys::{Device, Port, ProtectionDomain, Selection};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;

/// A device and a port of it, opened once in a process.
pub(super) struct Adapter {
    pub(super) device: Device,
    pub(super) port: Port,
    /// For links that were connected from here: nothing in it is for others to reach.
    own: Mutex<Option<Arc<Own>>>,
}

/// What links that were connected from here work with.
struct Own {
    domain: ProtectionDomain,
    heap: Arc<Heap>,
}

/// Those that were opened. Few, and kept: links come and go.
static ADAPTERS: Mutex<Vec<Arc<Adapter>>> = Mutex::new(Vec::new());

impl Adapter {
    /// The one for links that go from or come to `address`, as far as it is left open by what that said to go through, or else by
    /// the options.
    pub(super) fn near(
        address: IpAddr,
        through: &AdapterChoice,
        options: &LinkOptions,
    ) -> Result<Arc<Self>, LinkError> {
        let choice = if through.is_some() { through } else { &options.rdma_through };
        let selection = Selection {
            device: choice.device.clone(),
            gid_index: choice.gid_index,
            near: (!address.is_unspecified()).then(|| address.to_canonical()),
        };
        let (device, port) = Device::open(&selection)?;
        let mut adapters = ADAPTERS.lock();
        let same = |known: &&Arc<Self>| {
            known.device.name() == device.name()
                && (known.port.number, known.port.gid_index, known.port.gid) == (port.number, port.gid_index, port.gid)
        };
        if let Some(known) = adapters.iter().find(same) {
            return Ok(known.clone());
        }
        tracing::info!(
            device = device.name(),
            port = port.number,
            gid = %port.gid,
            gid_index = port.gid_index,
            mtu = 128u32 << port.mtu,
            "RDMA"
        );
        let adapter = Arc::new(Self { device, port, own: Mutex::new(None) });
        adapters.push(adapter.clone());
        Ok(adapter)
    }

    /// The domain of links that were connected from here.
    pub(super) fn own_domain(&self) -> Result<ProtectionDomain, LinkError> {
        Ok(self.own()?.domain.clone())
    }

    /// Registered memory in that domain.
    pub(super) fn heap(&self) -> Result<Arc<Heap>, LinkError> {
        Ok(self.own()?.heap.clone())
    }

    fn own(&self) -> Result<Arc<Own>, LinkError> {
        let mut own = self.own.lock();
        if let Some(own) = &*own {
            return Ok(own.clone());
        }
        let domain = ProtectionDomain::new(&self.device)?;
        let made = Arc::new(Own { heap: Arc::new(Heap::new(domain.clone())), domain });
        *own = Some(made.clone());
        Ok(made)
    }
}
