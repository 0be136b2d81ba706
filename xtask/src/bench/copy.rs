//! Copying tools side by side, each from fresh servers to a fresh target.

use super::{
    Options,
    footprint::kibibytes,
    servers::{self, Kind, Server, diskpipe, words},
    table::{head, line, median, short},
};
use crate::packages;
use anyhow::{Context, Result, bail};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What is copied where.
struct Case {
    name: &'static str,
    /// What nbdkit serves as the source; else it is the file.
    from: &'static [&'static str],
    to: To,
    /// In bytes, for tools that must be told.
    size: u64,
}

enum To {
    Null,
    File,
    /// What nbdkit serves.
    Server(&'static [&'static str]),
}

const G: u64 = 1 << 30;
/// Stands for the file with holes.
const FILE: &str = "FILE";
const RANDOM: &[&str] = &["sparse-random", "16G", "seed=1"];

const CASES: &[Case] = &[
    Case { name: "sparse-random to itself", from: RANDOM, to: To::Server(RANDOM), size: 16 * G },
    Case { name: "file to nbd", from: &[], to: To::Server(&["memory", "8G"]), size: 8 * G },
    Case { name: "nbd to file", from: &["-r", "file", FILE], to: To::File, size: 8 * G },
    Case { name: "nbd to null", from: &["-r", "file", FILE], to: To::Null, size: 8 * G },
    Case { name: "pattern to null", from: &["-r", "pattern", "4G"], to: To::Null, size: 4 * G },
];

/// What a run cost: seconds, and MiB.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    memory: f64,
}

pub(super) fn compare(options: &Options) -> Result<()> {
    if !["nbdkit", "nbdcopy"].iter().all(|program| packages::is_installed(program)) {
        println!("\nSKIPPED: copying: nbdkit and nbdcopy are needed");
        return Ok(());
    }
    let dir = servers::scratch()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    head(
        "Copying; wall and processor time as shares of nbdcopy's",
        ["", "tool", "seconds", "wall", "processor", "peak, MiB"],
    );
    for case in CASES.iter().filter(|case| case.name.contains(&options.shape)) {
        let mut costs: Vec<Vec<Cost>> = vec![vec![]; TOOLS.len()];
        for round in 0..options.rounds {
            for turn in 0..TOOLS.len() {
                let n = (turn + round) % TOOLS.len();
                if packages::is_installed(TOOLS[n].1) {
                    let cost = run(case, TOOLS[n].0, dir.path(), &source).with_context(|| TOOLS[n].0)?;
                    costs[n].push(cost);
                }
            }
        }
        for ((tool, _), of_tool) in TOOLS.iter().zip(&costs) {
            let all = |what: fn(&Cost) -> f64| short(median(of_tool.iter().map(what).collect()));
            let share = |what: fn(&Cost) -> f64| {
                short(median(of_tool.iter().zip(&costs[0]).map(|(a, b)| what(a) / what(b)).collect()))
            };
            let shares = [share(|cost| cost.wall), share(|cost| cost.cpu)];
            let [wall, cpu] = shares;
            let (seconds, memory) = (all(|cost| cost.wall), all(|cost| cost.memory));
            line([case.name.into(), (*tool).into(), seconds, wall, cpu, memory]);
        }
    }
    Ok(())
}

/// Tools, the one that ratios are to first, and the programs they need.
const TOOLS: &[(&str, &str)] =
    &[("nbdcopy", "nbdcopy"), ("qemu-img", "qemu-img"), ("qemu-img -W -m16", "qemu-img"), ("diskpipe", "sh")];

fn run(case: &Case, tool: &str, dir: &Path, source: &Path) -> Result<Cost> {
    let serve = |plugin: &[&str]| {
        let plugin = plugin.iter().map(|word| word.replace(FILE, &source.display().to_string())).collect();
        Server::start(&Kind::plugin(plugin))
    };
    let path = |path: PathBuf| path.display().to_string();
    // The servers live as long as these.
    let (from, to): (Option<Server>, Option<Server>);
    let (source, target) = (
        if case.from.is_empty() {
            path(source.to_owned())
        } else {
            from = Some(serve(case.from)?);
            from.as_ref().map(Server::uri).unwrap_or_default()
        },
        match case.to {
            To::Null => "null:".to_owned(),
            To::File => path(dir.join("target")),
            To::Server(plugin) => {
                to = Some(serve(plugin)?);
                to.as_ref().map(Server::uri).unwrap_or_default()
            }
        },
    );
    let _ = fs::remove_file(dir.join("target"));
    let command = match tool {
        "nbdcopy" => words(&["nbdcopy", &source, &target]),
        "diskpipe" => words(&[&diskpipe(), "copy", &source, &target]),
        _ => {
            let mut command = words(&["qemu-img", "convert", "-f", "raw", "-O", "raw"]);
            command.extend(tool.split(' ').skip(1).map(str::to_owned));
            if !matches!(case.to, To::File) {
                command.push("-n".into());
            }
            let null = r#"json:{"driver":"raw","file":{"driver":"null-co","size":SIZE}}"#;
            let null = null.replace("SIZE", &case.size.to_string());
            command.extend([source, if matches!(case.to, To::Null) { null } else { target }]);
            command
        }
    };
    cost_of(&command)
}

/// Runs it and watches it.
fn cost_of(command: &[String]) -> Result<Cost> {
    let start = Instant::now();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("{} does not start", command[0]))?;
    let id = rustix::process::Pid::from_child(&child);
    let mut memory: f64 = 0.0;
    // It stays until its times were read.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(id), look)?.is_none() {
        memory = memory.max(kibibytes(child.id(), "VmHWM:").unwrap_or_default() / 1024.0);
        std::thread::sleep(Duration::from_millis(2));
    }
    let wall = start.elapsed().as_secs_f64();
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    // Behind the name, in ticks of 10 ms: of its own and of the kernel for it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let cpu = (ticks(11) + ticks(12)) / 100.0;
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", command.join(" "));
    }
    Ok(Cost { wall, cpu, memory })
}

/// 8 GiB with a mebibyte of data in each eighth one.
fn make_source(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(8 * G)?;
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for at in (0..8 * G).step_by(8 << 20) {
        let random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let bytes: Vec<u8> = std::iter::repeat_with(random).take((1 << 20) / 8).flatten().collect();
        file.write_all_at(&bytes, at)?;
    }
    Ok(())
}
