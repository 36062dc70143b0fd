//! DPDK: packets past the kernel.
//!
//! | file | noun |
//! | --- | --- |
//! | `options.rs` | [`DpdkOptions`]: how this process uses it |
//! | `reserved.rs` | [`Reserved`]: memory that drivers send from where it is |
//! | `device.rs` | a port as a device, with the feature `dpdk` |

#[cfg(feature = "dpdk")]
mod device;
mod options;
mod reserved;

#[cfg(feature = "dpdk")]
pub use device::DpdkDevice;
#[cfg(feature = "dpdk")]
pub(super) use device::endpoint;
pub use options::{DEFAULT_MTU, DpdkOptions, configure};
pub use reserved::Reserved;

#[cfg(not(feature = "dpdk"))]
pub(super) const NO_DPDK: crate::link::LinkError =
    crate::link::LinkError::Unsupported("DPDK: this program was built without its feature `dpdk`");
