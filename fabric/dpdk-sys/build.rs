//! Compiles the shim against the libdpdk that pkg-config finds, and links it: dynamically, or with the feature `static` into the program.

use std::path::PathBuf;

/// What the shim calls.
const CALLED: [&str; 5] = ["ethdev", "mbuf", "mempool", "ring", "eal"];
/// What these and the drivers use besides.
const USED: [&str; 14] = [
    "kvargs",
    "telemetry",
    "rcu",
    "net",
    "meter",
    "pci",
    "hash",
    "timer",
    "vhost",
    "cryptodev",
    "dmadev",
    "security",
    "gso",
    "ip_frag",
];
/// Drivers, and the buses that they are found on. Nothing refers to them: they make themselves known when the program starts.
const DRIVERS: [&str; 19] = [
    "bus_vdev",
    "bus_pci",
    "bus_auxiliary",
    "mempool_ring",
    "common_iavf",
    "common_mlx5",
    "net_memif",
    "net_vhost",
    "net_virtio",
    "net_af_packet",
    "net_af_xdp",
    "net_tap",
    "net_mlx5",
    "net_ice",
    "net_i40e",
    "net_ixgbe",
    "net_iavf",
    "net_e1000",
    "net_ena",
];
/// Libraries of the system that all this uses.
const SYSTEM: [&str; 7] = ["numa", "ibverbs", "mlx5", "xdp", "bpf", "elf", "bsd"];

fn main() {
    println!("cargo::rerun-if-changed=shim/shim.c");
    println!("cargo::rerun-if-changed=shim/shim.h");
    if std::env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    // Only for its flags: the libraries are named below.
    let dpdk =
        pkg_config::Config::new().cargo_metadata(false).atleast_version("22.11").probe("libdpdk").unwrap_or_else(
            |error| panic!("DPDK 22.11 or later is needed (libdpdk-dev and pkg-config on Debian): {error}"),
        );
    let mut build = cc::Build::new();
    build.file("shim/shim.c").includes(&dpdk.include_paths).flag("-include").flag("rte_config.h");
    // DPDK's headers use SSE 4.2; its own flags ask for the same.
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        build.flag("-march=x86-64-v2");
    }
    build
        .opt_level(3)
        .warnings(true)
        .extra_warnings(true)
        .flag("-Wno-deprecated-declarations")
        .compile("dmrpc_dpdk_shim");
    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    if std::env::var_os("CARGO_FEATURE_STATIC").is_some() {
        link_statically(&dpdk.link_paths);
    } else {
        // The drivers are loaded by EAL itself, from its plug-in folder.
        for library in CALLED {
            println!("cargo::rustc-link-lib=dylib=rte_{library}");
        }
    }
}

/// Links DPDK's archives whole. A driver that this DPDK was built without is left out.
fn link_statically(folders: &[PathBuf]) {
    let multiarch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo says so");
    let usual = [PathBuf::from(format!("/usr/lib/{multiarch}-linux-gnu")), "/usr/lib64".into(), "/usr/lib".into()];
    let holds = |folder: &&PathBuf| folder.join("librte_eal.a").exists();
    let folder = folders.iter().chain(&usual).find(holds).unwrap_or_else(|| {
        panic!("DPDK's archives (librte_eal.a and others) are needed for the feature `static`: Debian's libdpdk-dev has them")
    });
    println!("cargo::rustc-link-search=native={}", folder.display());
    for library in DRIVERS.iter().chain(&CALLED).chain(&USED) {
        if folder.join(format!("librte_{library}.a")).exists() {
            println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=rte_{library}");
        }
    }
    for library in SYSTEM {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
}
