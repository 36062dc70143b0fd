//! Hosts on one Ethernet, as network namespaces: with two a cable between them, with more a bridge.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespaces, as long as the value lives.
pub(crate) struct Switch {
    hosts: Vec<String>,
    bridge: Option<String>,
}

/// What each host calls its end of the cable.
pub(crate) const DEVICE: &str = "wire0";

impl Switch {
    /// So many hosts. `None`, with the reason printed, where that is not allowed or there is no `ip`.
    pub(crate) fn make(hosts: usize) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        if !run(&["-V"]) {
            eprintln!("SKIPPED: there is no `ip` (Debian: iproute2)");
            return None;
        }
        let own = format!("dmt{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut switch = Self { hosts: Vec::new(), bridge: None };
        for host in 0..hosts {
            let name = format!("{own}-{host}");
            if !run(&["netns", "add", &name]) {
                eprintln!("SKIPPED: network namespaces can't be made here");
                return None;
            }
            switch.hosts.push(name);
        }
        if let [left, right] = &switch.hosts[..] {
            let made = run(&[
                "link",
                "add",
                DEVICE,
                "netns",
                left,
                "numtxqueues",
                "1",
                "numrxqueues",
                "1",
                "type",
                "veth",
                "peer",
                "name",
                DEVICE,
                "netns",
                right,
                "numtxqueues",
                "1",
                "numrxqueues",
                "1",
            ]);
            assert!(made, "a pair of veth devices");
        } else {
            let bridge = format!("{own}-b");
            assert!(run(&["netns", "add", &bridge]), "a namespace");
            switch.bridge = Some(bridge.clone());
            assert!(run(&["-n", &bridge, "link", "add", "bridge0", "up", "type", "bridge"]), "a bridge");
            for (number, host) in switch.hosts.iter().enumerate() {
                let port = format!("port{number}");
                let made = run(&[
                    "link", "add", DEVICE, "netns", host, "type", "veth", "peer", "name", &port, "netns", &bridge,
                ]);
                assert!(made, "a pair of veth devices");
                assert!(run(&["-n", &bridge, "link", "set", &port, "master", "bridge0", "up"]), "a port of the bridge");
            }
        }
        for host in &switch.hosts {
            // Neighbour discovery of IPv6 would come between.
            let quiet = format!("echo 1 > /proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6");
            let _ = Command::new("ip").args(["netns", "exec", host, "sh", "-c", &quiet]).stderr(Stdio::null()).status();
            for device in ["lo", DEVICE] {
                assert!(run(&["-n", host, "link", "set", device, "up"]), "{device} up");
            }
        }
        Some(switch)
    }

    /// A program on one of the hosts, to be given arguments.
    pub(crate) fn program(&self, host: usize, program: &Command) -> Command {
        within(&self.hosts[host], program)
    }

    /// A program in the bridge itself, whose ports are called `port0` and so on.
    pub(crate) fn bridge_program(&self, program: &Command) -> Command {
        within(self.bridge.as_ref().expect("caller: with more than two hosts"), program)
    }
}

/// A program in a namespace, with the environment and the arguments that it was given so far.
fn within(namespace: &str, program: &Command) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

impl Drop for Switch {
    fn drop(&mut self) {
        for host in self.hosts.iter().chain(&self.bridge) {
            run(&["netns", "del", host]);
        }
    }
}

fn run(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
