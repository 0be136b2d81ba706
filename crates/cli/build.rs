//! How the program is linked.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Half a megabyte of tables holds addresses, which the loader corrects at every start. Packed, their list is a fiftieth
    // as long and done in half the time. The C library of the machine must know of this; if that which the program is built
    // on does, that which it runs on does, too.
    let target = |what| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let built_here = env::var("HOST") == env::var("TARGET");
    let gnu = (target("OS"), target("ENV")) == ("linux".into(), "gnu".into()) && built_here;
    if gnu && target("ARCH") == "x86_64" && c_library() >= Some((2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // What unwinds panics is linked in: as a library of its own it would be loaded at every start, and then asks the
    // processor what it can do, which takes a virtual machine long to answer. Rust's standard library asks for
    // `libgcc_s`, so there is one here, for the linker alone, that names the static ones.
    if gnu && has_static_unwinder() {
        let dir = env::var("OUT_DIR").expect("cargo says where");
        if fs::write(Path::new(&dir).join("libgcc_s.so"), "GROUP ( -lgcc_eh -lgcc )\n").is_ok() {
            println!("cargo:rustc-link-search=native={dir}");
        }
    }
}

/// Whether the compiler that links brings it. One that does not know a file prints the bare name.
fn has_static_unwinder() -> bool {
    let output = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    output.is_ok_and(|output| String::from_utf8(output.stdout).is_ok_and(|path| path.starts_with('/')))
}

/// Its version, as in `ldd (Debian GLIBC 2.36-9) 2.36`.
fn c_library() -> Option<(u32, u32)> {
    let output = Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.lines().next()?.rsplit(' ').next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
