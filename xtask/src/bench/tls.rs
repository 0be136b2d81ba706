//! TLS: our server beside nbdkit, with certificates and with shared secrets, asked by the leanest client and by copiers.
//! A copier shares the core with the server, and what it takes for itself makes the servers look alike.

use super::{
    Options,
    load::{self, SHAPES},
    servers::{Kind, Server, Store, diskpipe, scratch, words},
    start,
    table::{Column, Row, head, line, short},
};
use crate::packages;
use anyhow::{Result, ensure};
use net::{
    Address,
    tls::{self, CertificateWishes, Client, ClientSettings},
};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Rows of the leanest client.
const ASKED: [&str; 4] = ["read-256k-q16", "write-256k-q16", "read-4k-q64", "connect"];

pub(super) fn compare(options: &Options) -> Result<()> {
    if !packages::is_installed("nbdkit") || !tls::BUILT {
        println!("\nSKIPPED: TLS: nbdkit, and a build with TLS, are needed");
        return Ok(());
    }
    let keys = scratch()?;
    let wishes = CertificateWishes {
        names: ["localhost", "127.0.0.1"].map(String::from).to_vec(),
        user: "alice".into(),
        days: 2,
    };
    tls::make_certificates(keys.path(), &wishes)?;
    tls::make_key(keys.path(), "alice")?;
    head("TLS, a disk in memory", ["", "", "nbdkit/s", "diskpipe/s", "diskpipe / nbdkit"]);
    for (of, words, settings, uri) in means(keys.path()) {
        for tcp in [false, true] {
            let client = Client::new(&settings)?;
            let kinds = [Kind::nbdkit(Store::Memory), Kind::diskpipe(Store::Memory)];
            let kinds = kinds.map(|kind| kind.over_tls(words.clone(), client.clone()));
            let running = start(&kinds, tcp);
            let over = format!("{of}, {}", if tcp { "TCP" } else { "unix socket" });
            for client in ASKED.into_iter().chain(["nbdcopy", "diskpipe copy"]) {
                if !client.contains(&options.shape) || client == "nbdcopy" && !packages::is_installed(client)
                {
                    continue;
                }
                let column = |(kind, server): &(&Kind, Server)| {
                    let (name, target) = (kind.name.clone(), server.target.clone());
                    let shape = SHAPES.iter().find(|shape| shape.name == client);
                    let uri = address(&target.address, &uri);
                    Column {
                        name,
                        measure: Box::new(move |_| match shape {
                            Some(shape) => load::measure(shape, &target, options.time()),
                            None => copied(client, &uri),
                        }),
                    }
                };
                let columns: Vec<Column<'_>> = running.iter().map(column).collect();
                if columns.len() < kinds.len() {
                    continue;
                }
                let row = Row::measure(&columns, 0, options.rounds);
                let cells = [row.figure(0), row.figure(1), row.ratio(1, 0)].map(short);
                line([over.clone(), client.to_owned()].into_iter().chain(cells));
            }
        }
    }
    Ok(())
}

/// What it is called; what servers are told; what clients are; and what ends a URI.
fn means(keys: &Path) -> [(&'static str, Vec<String>, ClientSettings, String); 2] {
    let dir = keys.display().to_string();
    let certificates = ClientSettings { certificates: Some(keys.into()), ..ClientSettings::default() };
    let file = keys.join("keys.psk");
    let psk =
        ClientSettings { psk_file: Some(file), user: Some("alice".into()), ..ClientSettings::default() };
    [
        (
            "certificates",
            words(&["--tls=require", &format!("--tls-certificates={dir}")]),
            certificates,
            format!("tls-certificates={dir}"),
        ),
        (
            "secrets",
            words(&["--tls=require", &format!("--tls-psk={dir}/keys.psk")]),
            psk,
            format!("tls-psk-file={dir}/keys.psk"),
        ),
    ]
}

fn address(address: &Address, rest: &str) -> String {
    match address {
        Address::Unix(path) => format!("nbds+unix://alice@localhost/?socket={}&{rest}", path.display()),
        Address::Tcp { host, port } => format!("nbds://alice@{host}:{port}/?{rest}"),
        other => other.to_string(),
    }
}

/// Copies of the whole disk to nowhere, a second.
fn copied(client: &str, uri: &str) -> Result<f64> {
    let ours = diskpipe();
    let command: &[&str] = if client == "nbdcopy" { &["nbdcopy"] } else { &[&ours, "copy"] };
    let start = Instant::now();
    let status =
        Command::new(command[0]).args(&command[1..]).args([uri, "null:"]).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "it ended with {status}");
    Ok(1.0 / start.elapsed().as_secs_f64())
}
