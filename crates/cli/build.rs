//! How the program is linked.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Half a megabyte of tables holds addresses, which the loader corrects at every start. Packed, their list is a fiftieth
    // as long and done in half the time. The C library of the machine must know of this; if that which the program is built
    // on does, that which it runs on does, too.
    let target = |what| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let built_here = env::var("HOST") == env::var("TARGET");
    if (target("ARCH"), target("OS"), target("ENV")) == ("x86_64".into(), "linux".into(), "gnu".into())
        && built_here
        && c_library() >= Some((2, 36))
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Its version, as in `ldd (Debian GLIBC 2.36-9) 2.36`.
fn c_library() -> Option<(u32, u32)> {
    let output = std::process::Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.lines().next()?.rsplit(' ').next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
