//! Compiles the shim against the libdpdk that pkg-config finds.

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
    // The drivers are loaded by EAL itself, from its plug-in folder.
    for library in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
}
