//! DPDK: packets past the kernel.
//!
//! | file | noun |
//! | --- | --- |
//! | `options.rs` | [`DpdkOptions`]: how this process uses it |
//! | `reserved.rs` | [`Reserved`]: memory that drivers send from where it is |
//! | `port.rs` | `Port`: the port of this process, with the feature `dpdk`, and what its queues share |
//! | `device.rs` | `DpdkDevice`: one of its queues as a device |

#[cfg(feature = "dpdk")]
mod device;
mod options;
#[cfg(feature = "dpdk")]
mod port;
mod reserved;

#[cfg(feature = "dpdk")]
pub use device::{DpdkDevice, Flow};
pub use options::{DEFAULT_MTU, DEFAULT_QUEUES, DpdkOptions, configure};
#[cfg(feature = "dpdk")]
pub(super) use port::lanes;
#[cfg(feature = "dpdk")]
pub use port::{Port, Traffic, traffic};
pub use reserved::Reserved;

#[cfg(not(feature = "dpdk"))]
pub(super) const NO_DPDK: crate::link::LinkError =
    crate::link::LinkError::Unsupported("DPDK: this program was built without its feature `dpdk`");
