//! Events, clients that come and go, and the end.

use super::*;
use crate::common::testing::{Memory, layer};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The filter with these parameters in a server, and what tells its end.
fn serving(params: &[&str]) -> (Arc<dyn Backend>, Receiver<()>) {
    let layer = layer::<ExitWhen>(params, &Memory::new(vec![])).unwrap();
    let (tell, ended) = channel();
    let tell = Mutex::new(tell);
    layer.hosted(&Wish::new(move || {
        let _ = tell.lock().unwrap().send(());
    }));
    layer.get_ready().unwrap();
    layer.after_fork().unwrap();
    (layer, ended)
}

fn comes(layer: &Arc<dyn Backend>, connection: u64) -> bool {
    layer.preconnect(&Client { connection, ..Client::default() }).wait().is_ok()
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn after_the_event_nobody_comes_in_and_the_last_to_leave_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stop");
    let (layer, ended) = serving(&[&format!("exit-when-file-created={}", file.display())]);
    assert!(comes(&layer, 1) && comes(&layer, 2));
    std::fs::write(&file, "").unwrap();
    assert!(!comes(&layer, 3));
    layer.disconnected(3);
    layer.disconnected(1);
    assert!(ended.try_recv().is_err());
    layer.disconnected(2);
    ended.recv_timeout(LONG).unwrap();
    layer.finish();
}

#[test]
fn a_server_without_clients_looks_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go");
    std::fs::write(&file, "").unwrap();
    let (layer, ended) =
        serving(&["exit-when-poll=1ms", &format!("exit-when-file-deleted={}", file.display())]);
    assert!(ended.recv_timeout(Duration::from_millis(20)).is_err());
    std::fs::remove_file(&file).unwrap();
    ended.recv_timeout(LONG).unwrap();
    layer.finish();
}

#[test]
fn a_process_that_ends_is_noticed() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let (layer, ended) = serving(&["exit-when-poll=1ms", &format!("exit-when-process-exits={}", child.id())]);
    assert!(ended.recv_timeout(Duration::from_millis(20)).is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    ended.recv_timeout(LONG).unwrap();
    layer.finish();
}

#[test]
fn a_script_says_when() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("count");
    let count = format!("exit-when-script=echo >> {0}; test $(wc -l < {0}) -lt 3 || exit 88", file.display());
    let (layer, ended) = serving(&["exit-when-poll=1ms", &count]);
    ended.recv_timeout(LONG).unwrap();
    assert_eq!(std::fs::read(&file).unwrap().len(), 3);
    layer.finish();
    let (layer, ended) = serving(&["exit-when-poll=1ms", "exit-when-script=exit 3"]);
    assert!(ended.recv_timeout(Duration::from_millis(20)).is_err());
    layer.finish();
}

#[test]
fn what_cannot_happen_is_refused() {
    let why = |param: &str| {
        let layer = layer::<ExitWhen>(&[param], &Memory::new(vec![]));
        layer.and_then(|layer| layer.get_ready()).unwrap_err().to_string()
    };
    assert!(why("exit-when-process-exits=0").contains("no process has that number"));
    assert_eq!(
        why("exit-when-pipe-closed=987"),
        "exit-when-pipe-closed=987: no such descriptor was inherited"
    );
}
