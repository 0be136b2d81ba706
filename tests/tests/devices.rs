//! Block devices at either end: copied to and from, and served. They are loop devices over files.

use e2e::{Loop, Run, directory, needs, same_content};
use std::fs::{self, File};
use std::path::PathBuf;

const SIZE: usize = 24 << 20;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| if (at >> 18) % 3 == 0 { 0 } else { (at * 13 + (at >> 12)) as u8 }).collect()
}

#[test]
fn a_device_is_copied_to_and_from() {
    needs!("losetup", "cmp");
    let dir = directory();
    let (image, below, back) = (dir.path().join("image"), dir.path().join("below"), dir.path().join("back"));
    fs::write(&image, content()).unwrap();
    // What was there before must go.
    fs::write(&below, vec![0x77; SIZE + (1 << 20)]).unwrap();
    let Some(device) = Loop::over(&below) else { return };
    Run::diskpipe().words("copy --flush").arg(&image).arg(device.path()).end().good();
    Run::new("cmp").arg("-n").arg(SIZE.to_string()).arg(&image).arg(device.path()).end().good();
    Run::diskpipe().arg("copy").arg(device.path()).arg(&back).end().good();
    let copied = fs::read(&back).unwrap();
    assert_eq!(copied.len(), SIZE + (1 << 20), "a device is as long as it was");
    assert!(copied[SIZE..].iter().all(|byte| *byte == 0x77), "what lies behind the copy stays");
    // A device that is too small takes nothing.
    let small = dir.path().join("small");
    File::create(&small).and_then(|file| file.set_len(1 << 20)).unwrap();
    let Some(small) = Loop::over(&small) else { return };
    let refused = Run::diskpipe().arg("copy").arg(&image).arg(small.path()).end().code(1);
    assert!(refused.stderr.contains("smaller"), "{}", refused.stderr);
}

#[test]
fn a_device_is_served() {
    needs!("losetup", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let dir = directory();
    let (image, below) = (dir.path().join("image"), dir.path().join("below"));
    fs::write(&image, content()).unwrap();
    fs::write(&below, vec![0x77; SIZE]).unwrap();
    let Some(device) = Loop::over(&below) else { return };
    let command = format!(
        r#"nbdinfo --size "$uri" && nbdcopy --flush '{0}' "$uri" && qemu-img compare -f raw -F raw "$uri" '{0}' &&
           qemu-io -f raw -c 'write -zu 1M 1M' -c 'discard 4M 2M' -c 'read -P 0 1M 1M' \
               -c 'write -P 5 1M 2M' -c 'flush' "$uri""#,
        image.display()
    );
    let serve = Run::diskpipe().words("serve file").arg(device.path()).args(["--run", &command]);
    let said = serve.text();
    assert!(said.starts_with("25165824\nImages are identical.\n") && !said.contains("failed"), "{said}");
    drop(device);
    let mut expected = content();
    expected[1 << 20..3 << 20].fill(5);
    expected[4 << 20..6 << 20].fill(0);
    fs::write(&image, expected).unwrap();
    same_content(("raw", &image), ("raw", &below));
}

#[test]
fn a_device_that_may_only_be_read_is_served_so() {
    needs!("losetup", "nbdinfo");
    let dir = directory();
    let below = dir.path().join("below");
    fs::write(&below, vec![1; 1 << 20]).unwrap();
    let Some(device) = Loop::over(&below) else { return };
    Run::new("blockdev").arg("--setro").arg(device.path()).end().good();
    let serve = Run::diskpipe().words("serve file").arg(device.path());
    serve.args(["--run", r#"nbdinfo --is read-only "$uri" && nbdcopy "$uri" null:"#]).end().good();
}

/// Tells what a server's disk says of itself.
const ASK: &str =
    r#"nbdsh -u "$uri" -c 'print(h.get_block_size(nbd.SIZE_MINIMUM), h.can_fast_zero(), h.can_trim())'"#;

#[test]
fn a_device_is_served_past_the_page_cache() {
    needs!("losetup", "nbdcopy", "nbdsh", "qemu-io");
    let dir = directory();
    let (image, below) = (dir.path().join("image"), dir.path().join("below"));
    fs::write(&image, content()).unwrap();
    fs::write(&below, vec![0x77; SIZE]).unwrap();
    let Some(device) = Loop::over(&below) else { return };
    let serve = Run::diskpipe().words("serve file cache=direct").arg(device.path()).args(["--run", ASK]);
    assert_eq!(serve.text(), "512 True True\n");
    let command = format!(
        r#"nbdcopy --connections=4 --requests=64 '{}' "$uri" && qemu-io -f raw -c 'read -P 0 768k 256k' \
               -c 'write -f -P 9 1M 512' -c 'write -z 2M 1M' -c 'write -zu 3M 1536' -c 'discard 4M 1M' -c flush "$uri""#,
        image.display()
    );
    let serve = Run::diskpipe().words("serve file cache=direct").arg(device.path()).args(["--run", &command]);
    let said = serve.text();
    assert!(!said.contains("failed"), "{said}");
    drop(device);
    let mut expected = content();
    expected[1 << 20..(1 << 20) + 512].fill(9);
    expected[2 << 20..(3 << 20) + 1536].fill(0);
    expected[4 << 20..5 << 20].fill(0);
    fs::write(&image, expected).unwrap();
    same_content(("raw", &image), ("raw", &below));
}

#[test]
fn zeroing_a_device_touches_nothing_beside_the_range() {
    needs!("losetup", "nbdsh");
    let dir = directory();
    let below = dir.path().join("below");
    fs::write(&below, vec![0x77; 1 << 20]).unwrap();
    let Some(device) = Loop::over(&below) else { return };
    // No sector is whole, some are, and with holes allowed and not.
    let script = r#"nbdsh -u "$uri" -c '
h.zero(50, 100)
h.zero(1000, 3000, nbd.CMD_FLAG_NO_HOLE)
h.zero(70001, 300000)
h.trim(500000, 7777)
h.flush()'"#;
    Run::diskpipe().words("serve file").arg(device.path()).args(["--run", script]).end().good();
    drop(device);
    let found = fs::read(&below).unwrap();
    let holds = |range: std::ops::Range<usize>, byte: u8| found[range].iter().all(|found| *found == byte);
    assert!(holds(0..100, 0x77) && holds(150..3000, 0x77) && holds(4000..7777, 0x77));
    assert!(holds(100..150, 0) && holds(3000..4000, 0) && holds(300_000..370_001, 0));
    // Of what was trimmed only whole sectors may have gone.
    assert!(holds(507_777..1 << 20, 0x77) && holds(8192..300_000, 0));
}

#[test]
fn a_partition_is_served() {
    needs!("losetup", "sfdisk", "partx", "nbdcopy", "cmp");
    let dir = directory();
    let (image, below) = (dir.path().join("image"), dir.path().join("below"));
    File::create(&below).and_then(|file| file.set_len(8 << 20)).unwrap();
    let table = "label: gpt\nstart=2048, size=4096\nstart=8192, size=2048\n";
    Run::new("sfdisk").arg("--quiet").arg(&below).input(table.as_bytes()).end().good();
    fs::write(&image, &content()[..1 << 20]).unwrap();
    let Some(device) = Loop::over(&below) else { return };
    // The kernel may not know such tables itself.
    Run::new("partx").arg("--add").arg(device.path()).end();
    let second = PathBuf::from(format!("{}p2", device.path().display()));
    if !second.exists() {
        e2e::skip("needs partitions of loop devices");
        return;
    }
    let command = format!(r#"diskpipe info --size "$uri" && nbdcopy --flush '{}' "$uri""#, image.display());
    let serve = Run::diskpipe().words("serve file").arg(&second).args(["--run", &command]);
    assert_eq!(serve.text(), "1048576\n");
    drop(device);
    let places = format!("0:{}", 8192 * 512);
    Run::new("cmp").args(["-n", "1048576", "-i", &places]).arg(&image).arg(&below).end().good();
}
