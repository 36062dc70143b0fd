//! Devices, and the port and GID that links go through.

use crate::RdmaError;
use crate::library::{Library, library};
use crate::raw::*;
use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The address of a port: on Ethernet an IPv6 address, of IPv4 in its mapped form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// That of an IP address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => Self(address.octets()),
        }
    }

    /// Whether it stands for an IPv4 address.
    pub fn is_ipv4(&self) -> bool {
        Ipv6Addr::from(self.0).to_ipv4_mapped().is_some()
    }

    fn is_link_local(&self) -> bool {
        self.0[..2] == [0xfe, 0x80]
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

/// Which device and GID to take.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only the device of this name.
    pub device: Option<String>,
    /// Only the entry of this number in a port's table.
    pub gid_index: Option<u8>,
    /// The address that links come to or go from; that failing, any.
    pub near: Option<IpAddr>,
}

/// What a device can do at most.
#[derive(Clone, Copy, Debug)]
pub struct DeviceLimits {
    /// Work requests that a queue holds.
    pub max_work_requests: u32,
    /// Entries of a completion queue.
    pub max_completions: u32,
    /// READs that a queue pair answers at a time.
    pub max_reads_answered: u8,
    /// READs that a queue pair has in flight.
    pub max_reads_asked: u8,
    /// The largest region, in bytes.
    pub max_region_bytes: u64,
}

/// An open device. Clones are the same.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    library: &'static Library,
    context: *mut ibv_context,
    name: String,
    limits: DeviceLimits,
}

// SAFETY: the functions of the library may be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above: it locks what it has to.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: opened by us, and all that was made of it is gone (invariant 1).
        let _ = unsafe { (self.library.ibv_close_device)(self.context) };
    }
}

/// A port of a device, and one of its GIDs.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// Where in the table the GID stands.
    pub gid_index: u8,
    /// The GID.
    pub gid: Gid,
    /// The largest packet, as verbs count it: 1 is 256 bytes, 5 is 4096.
    pub mtu: u8,
    /// The longest message, in bytes.
    pub max_message_bytes: u32,
}

impl Device {
    /// The device and port of `selection`.
    ///
    /// # Errors
    ///
    /// [`RdmaError`] says what is missing.
    pub fn open(selection: &Selection) -> Result<(Self, Port), RdmaError> {
        let library = library()?;
        let list = DeviceList::read(library)?;
        let mut found: Option<(u32, Device, Port)> = None;
        let (mut names, mut opened, mut active, mut failure) = (Vec::new(), false, false, None);
        let mut passed_over = Vec::new();
        for &device in list.devices() {
            // SAFETY: the device is of the list, which is still there; names are texts that end in 0.
            let name = unsafe { CStr::from_ptr((library.ibv_get_device_name)(device)) }.to_string_lossy().into_owned();
            let wanted = selection.device.as_ref().is_none_or(|wanted| *wanted == name);
            names.push(name.clone());
            if !wanted {
                continue;
            }
            let device = match Self::open_one(library, device, name) {
                Ok(device) => device,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            opened = true;
            for port in device.ports()? {
                active = true;
                for (fitness, port) in device.gids(&port, selection.near) {
                    if selection.gid_index.is_some_and(|wanted| wanted != port.gid_index) {
                        passed_over.push(format!(
                            "{} ({}, {}/{})",
                            port.gid_index,
                            port.gid,
                            device.name(),
                            port.number
                        ));
                        continue;
                    }
                    if found.as_ref().is_none_or(|(best, ..)| fitness > *best) {
                        found = Some((fitness, device.clone(), port));
                    }
                }
            }
        }
        let present = names.join(", ");
        match found {
            Some((_, device, port)) => Ok((device, port)),
            None if names.is_empty() => Err(no_device()),
            None if opened && active => Err(match selection.gid_index {
                Some(wanted) if !passed_over.is_empty() => {
                    RdmaError::NoSuchGid { wanted, present: passed_over.join(", ") }
                }
                _ => RdmaError::NoGid { wanted: selection.near.map(Gid::of), present },
            }),
            None if opened => Err(RdmaError::NoPort { present }),
            None => Err(failure.unwrap_or_else(|| RdmaError::NoSuchDevice {
                wanted: selection.device.clone().unwrap_or_default(),
                present,
            })),
        }
    }

    fn open_one(library: &'static Library, device: *mut ibv_device, name: String) -> Result<Self, RdmaError> {
        // SAFETY: the device is of a list that is still there.
        let context = unsafe { (library.ibv_open_device)(device) };
        if context.is_null() {
            return Err(RdmaError::Open { device: name, source: std::io::Error::last_os_error() });
        }
        let mut attributes = MaybeUninit::<ibv_device_attr>::zeroed();
        // SAFETY: an open device, and room for the answer.
        let queried = unsafe { (library.ibv_query_device)(context, attributes.as_mut_ptr()) };
        // SAFETY: numbers, for which zeros would do as well.
        let attributes = unsafe { attributes.assume_init() };
        let small = |number: i32| u8::try_from(number.clamp(1, 255)).expect("clamped");
        let limits = DeviceLimits {
            max_work_requests: attributes.max_qp_wr.max(0) as u32,
            max_completions: attributes.max_cqe.max(0) as u32,
            max_reads_answered: small(attributes.max_qp_rd_atom),
            max_reads_asked: small(attributes.max_qp_init_rd_atom),
            max_region_bytes: attributes.max_mr_size,
        };
        let device = Self { inner: Arc::new(Inner { library, context, name, limits }) };
        RdmaError::check("asking what an RDMA device can do", queried)?;
        Ok(device)
    }

    /// Its name, as `rdma link` shows it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What it can do at most.
    pub fn limits(&self) -> DeviceLimits {
        self.inner.limits
    }

    pub(crate) fn library(&self) -> &'static Library {
        self.inner.library
    }

    pub(crate) fn context(&self) -> *mut ibv_context {
        self.inner.context
    }

    /// Its functions that are no symbols of the library.
    pub(crate) fn ops(&self) -> &ibv_context_ops {
        // SAFETY: an open context; the table does not change.
        unsafe { &(*self.inner.context).ops }
    }

    /// Ports that are active, without a GID yet, and how many each has.
    fn ports(&self) -> Result<Vec<(Port, u32)>, RdmaError> {
        let mut ports = Vec::new();
        for number in 1..=u8::MAX {
            let mut attributes = MaybeUninit::<ibv_port_attr>::zeroed();
            // SAFETY: an open device, and room for the answer, of which this function fills an older, shorter form.
            if unsafe { (self.library().ibv_query_port)(self.context(), number, attributes.as_mut_ptr()) } != 0 {
                break;
            }
            // SAFETY: numbers, of which those that were not filled are 0.
            let attributes = unsafe { attributes.assume_init() };
            if attributes.state == IBV_PORT_ACTIVE {
                let port = Port {
                    number,
                    gid_index: 0,
                    gid: Gid([0; 16]),
                    mtu: attributes.active_mtu.clamp(1, 5) as u8,
                    max_message_bytes: attributes.max_msg_sz,
                };
                ports.push((port, attributes.gid_tbl_len.max(0) as u32));
            }
        }
        Ok(ports)
    }

    /// The GIDs of a port that can be used, and how well each fits.
    fn gids(&self, (port, entries): &(Port, u32), near: Option<IpAddr>) -> Vec<(u32, Port)> {
        let near = near.map(Gid::of);
        let mut gids = Vec::new();
        for index in 0..(*entries).min(256) {
            let mut entry = MaybeUninit::<ibv_gid_entry>::zeroed();
            let (context, number) = (self.context(), u32::from(port.number));
            // SAFETY: an open device, and room for the answer, whose size is told.
            let queried = unsafe {
                (self.library()._ibv_query_gid_ex)(
                    context,
                    number,
                    index,
                    entry.as_mut_ptr(),
                    0,
                    size_of::<ibv_gid_entry>(),
                )
            };
            if queried != 0 {
                continue;
            }
            // SAFETY: bytes and numbers.
            let entry = unsafe { entry.assume_init() };
            let gid = Gid(entry.gid);
            if gid.0 == [0; 16] || (entry.gid_type != IBV_GID_TYPE_ROCE_V2 && entry.gid_type != IBV_GID_TYPE_IB) {
                continue;
            }
            let fitness = u32::from(near == Some(gid)) << 3
                | u32::from(entry.gid_type == IBV_GID_TYPE_ROCE_V2) << 2
                | u32::from(gid.is_ipv4()) << 1
                | u32::from(!gid.is_link_local());
            gids.push((fitness, Port { gid_index: index as u8, gid, ..port.clone() }));
        }
        gids
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.inner.name)
    }
}

/// Why there is no device.
fn no_device() -> RdmaError {
    let names = |folder: &str| -> Option<Vec<String>> {
        let entries = std::fs::read_dir(folder).ok()?;
        Some(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    if !std::path::Path::new("/sys/class/infiniband_verbs").exists() {
        return RdmaError::NoKernelModule;
    }
    match names("/sys/class/infiniband") {
        Some(present) if !present.is_empty() => RdmaError::NoProvider { present: present.join(", ") },
        _ => RdmaError::NoDevice,
    }
}

/// The library's list of devices.
struct DeviceList {
    library: &'static Library,
    list: *mut *mut ibv_device,
    len: usize,
}

impl DeviceList {
    fn read(library: &'static Library) -> Result<Self, RdmaError> {
        let mut len = 0;
        // SAFETY: room for the number.
        let list = unsafe { (library.ibv_get_device_list)(&mut len) };
        if list.is_null() {
            // That is also how a kernel without verbs shows.
            return Err(no_device());
        }
        Ok(Self { library, list, len: len.max(0) as usize })
    }

    fn devices(&self) -> &[*mut ibv_device] {
        // SAFETY: the list has so many entries.
        unsafe { std::slice::from_raw_parts(self.list, self.len) }
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: made by the library; devices that were opened stay.
        unsafe { (self.library.ibv_free_device_list)(self.list) };
    }
}
