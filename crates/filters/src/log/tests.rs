//! Tests of `log`: the lines, the script, and many threads.

use super::*;
use crate::common::testing::{Memory, layer, open, over};
use disk::Client;

const F: WriteFlags = WriteFlags { fua: false };

/// The log of what `work` does, without the times.
fn log_of(params: &[&str], memory: &Arc<Memory>, work: impl FnOnce(&Arc<dyn Backend>)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let param = format!("logfile={}", path.display());
    let layer = layer::<Log>(&[&[param.as_str()], params].concat(), memory).unwrap();
    serve(&layer, work);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_at("2026-11-21 00:00:10.676932 ".len()).1.to_owned()).collect()
}

/// What a server does around its clients.
fn serve(layer: &Arc<dyn Backend>, work: impl FnOnce(&Arc<dyn Backend>)) {
    layer.get_ready().unwrap();
    layer.after_fork().unwrap();
    work(layer);
    layer.finish();
}

fn client(connection: u64) -> Client<'static> {
    Client { connection, ..Client::default() }
}

#[test]
fn every_request_is_a_line_as_scripts_know_it() {
    let mut bytes = vec![0; 1 << 20];
    bytes[512..1024].fill(1);
    let lines = log_of(&[], &Memory::new(bytes), |layer| {
        layer.preconnect(&client(1)).wait().unwrap();
        layer.exports(&client(1)).wait().unwrap();
        let disk = layer.open(&client(1)).wait().unwrap();
        disk.write(65536, Data::zeroes(4096), F).wait().unwrap();
        disk.read(Range::new(0, 512)).wait().unwrap();
        let zero = ZeroFlags { may_trim: true, fua: true, fast: false };
        disk.zero(Range::new(8192, 4096), zero).wait().unwrap();
        disk.trim(Range::new(8192, 4096), F).wait().unwrap();
        disk.cache(Range::new(0, 512)).wait().unwrap();
        disk.flush().wait().unwrap();
        disk.extents(Range::new(256, 1024), 3).wait().unwrap();
        disk.extents(Range::new(0, 512), 1).wait().unwrap();
    });
    let expected = r#"Ready thread_model=3
Fork
Preconnect id=1 readonly=0 ...
...Preconnect id=1 return=0
ListExports id=1 readonly=0 tls=0 ...
...ListExports id=1 exports=("") return=0
connection=1 Connect export="" tls=0 size=0x100000 minsize=0x1 prefsize=0x1000 maxsize=0xffffffff write=1 flush=1 rotational=0 trim=1 zero=2 fua=2 extents=1 cache=2 fast_zero=1
connection=1 Write id=1 offset=0x10000 count=0x1000 fua=0 ...
connection=1 ...Write id=1 return=0
connection=1 Read id=2 offset=0x0 count=0x200 ...
connection=1 ...Read id=2 return=0
connection=1 Zero id=3 offset=0x2000 count=0x1000 trim=1 fua=1 fast=0 ...
connection=1 ...Zero id=3 return=0
connection=1 Trim id=4 offset=0x2000 count=0x1000 fua=0 ...
connection=1 ...Trim id=4 return=0
connection=1 Cache id=5 offset=0x0 count=0x200 ...
connection=1 ...Cache id=5 return=0
connection=1 Flush id=6 ...
connection=1 ...Flush id=6 return=0
connection=1 Extents id=7 offset=0x100 count=0x400 req_one=0 ...
connection=1 ...Extents id=7 extents=(0x100 0x100 "hole,zero" 0x200 0x200 "" 0x400 0x100 "hole,zero") return=0
connection=1 Extents id=8 offset=0x0 count=0x200 req_one=1 ...
connection=1 ...Extents id=8 extents=(0x0 0x200 "hole,zero") return=0
connection=1 Disconnect transactions=8"#;
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
}

#[test]
fn errors_have_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rates = ["error=ENOSPC", "error-rate=1", "error-zero=ENOTSUP"];
    let failing = layer::<crate::error::Error>(&rates, &Memory::new(vec![0; 512])).unwrap();
    let layer = over::<Log>(&[&format!("logfile={}", path.display())], failing).unwrap();
    serve(&layer, |layer| {
        let disk = open(layer);
        disk.read(Range::new(0, 512)).wait().unwrap_err();
        disk.zero(Range::new(0, 512), ZeroFlags::default()).wait().unwrap_err();
    });
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("...Read id=1 return=-1 error=ENOSPC\n"), "{text}");
    assert!(text.contains("...Zero id=2 return=-1 error=ENOTSUP\n"), "{text}");
}

#[test]
fn a_script_finds_its_variables_in_the_order_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("said");
    let script = format!(
        "logscript=echo \"$connection $type $id $act $offset $count ${{extents[2]}} $return\" >> {}",
        path.display()
    );
    let layer = layer::<Log>(&[&script], &Memory::new(vec![0; 4096])).unwrap();
    serve(&layer, |layer| {
        let disk = layer.open(&client(7)).wait().unwrap();
        disk.read(Range::new(512, 1024)).wait().unwrap();
        disk.extents(Range::new(0, 4096), 1).wait().unwrap();
    });
    let expected = " PRINT  Ready    
 PRINT  Fork    
7 PRINT  Connect    
7 ENTER 1 Read 0x200 0x400  
7 LEAVE 1 Read    0
7 ENTER 2 Extents 0x0 0x1000  
7 LEAVE 2 Extents   hole,zero 0
7 PRINT  Disconnect    
";
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn the_file_is_replaced_or_appended_to_and_must_be_writable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let param = format!("logfile={}", path.display());
    let memory = Memory::new(vec![0; 512]);
    let run = |params: &[&str]| {
        serve(&layer::<Log>(params, &memory).unwrap(), |_| {});
        std::fs::read_to_string(&path).unwrap().lines().count()
    };
    assert_eq!(run(&[&param]), 2);
    assert_eq!(run(&[&param]), 2);
    assert_eq!(run(&[&param, "logappend=yes"]), 4);
    let layer = layer::<Log>(&["logfile=/no/such/dir/log"], &memory).unwrap();
    let why = layer.get_ready().unwrap_err().to_string();
    assert_eq!(why, "logfile=/no/such/dir/log: No such file or directory");
}

#[test]
fn without_a_destination_the_disk_below_is_opened_as_it_is() {
    let layer = layer::<Log>(&[], &Memory::new(vec![0; 512])).unwrap();
    serve(&layer, |layer| drop(open(layer).read(Range::new(0, 512)).wait().unwrap()));
}

#[test]
fn lines_of_many_threads_stay_whole() {
    let lines = log_of(&[], &Memory::new(vec![0; 512]), |layer| {
        std::thread::scope(|scope| {
            for connection in 1..=4 {
                scope.spawn(move || {
                    let disk = layer.open(&client(connection)).wait().unwrap();
                    for _ in 0..500 {
                        disk.read(Range::new(0, 512)).wait().unwrap();
                    }
                });
            }
        });
    });
    assert_eq!(lines.len(), 2 + 4 * (2 + 2 * 500));
    for connection in 1..=4 {
        let prefix = format!("connection={connection} ");
        let own: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
        assert_eq!(own[1], "Read id=1 offset=0x0 count=0x200 ...");
        assert_eq!(own[1000], "...Read id=500 return=0");
        assert_eq!(own[1001], "Disconnect transactions=500");
    }
}

#[test]
fn the_file_follows_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let layer = layer::<Log>(&[&format!("logfile={}", path.display())], &Memory::new(vec![0; 512])).unwrap();
    serve(&layer, |layer| {
        drop(open(layer));
        let logged = || std::fs::read_to_string(&path).unwrap().contains("Disconnect");
        let soon = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !logged() {
            assert!(std::time::Instant::now() < soon, "the line never came");
            std::thread::yield_now();
        }
    });
}
