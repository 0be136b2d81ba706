//! A machine boots from a disk that stands on a command line, and what it draws is looked at.

use e2e::{Machine, PATIENCE, Qmp, Run, Server};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// A boot sector that paints every pixel in the colour (x exclusive or y), of 256.
const PICTURE: &str = "
    0xb8 0x13 0x00          # mov ax, 13h       ; 320 x 200 pixels, a byte each
    0xcd 0x10               # int 10h
    0x68 0x00 0xa0 0x07     # push 0a000h; pop es
    0x31 0xff               # xor di, di
    (                       # for each pixel:
      0x89 0xf8 0x31 0xd2   #   mov ax, di; xor dx, dx
      0xbb le16:320         #   mov bx, 320
      0xf7 0xf3             #   div bx          ; ax is y, dx is x
      0x30 0xd0             #   xor al, dl
      0xaa                  #   stosb
      0x81 0xff le16:64000  #   cmp di, 64000
      0x75 0xee             #   jne
    )
    0xf4 0xeb 0xfd          # hlt, for ever
    @0x1fe 0x55 0xaa
";

/// The colours on the screen of a machine with this drive, once there are more than a text screen has.
fn colours(drive: &str) -> Option<usize> {
    let directory = e2e::directory();
    let (socket, picture) = (directory.path().join("qmp"), directory.path().join("picture.ppm"));
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let _machine = Machine::start(&["-vga", "std", "-drive", drive, "-qmp", &monitor])?;
    let end = Instant::now() + PATIENCE;
    let mut qmp = Qmp::connect(&socket);
    let mut most = 0;
    while most <= 100 {
        qmp.execute("screendump", json!({ "filename": picture }));
        most = most.max(colours_of(&picture));
        assert!(Instant::now() < end, "{drive}: {most} colours on the screen, and no more");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(most)
}

/// In a picture of the form `P6 WIDTH HEIGHT 255`.
fn colours_of(picture: &Path) -> usize {
    let bytes = std::fs::read(picture).unwrap_or_default();
    let header: usize = bytes.split(|b| b.is_ascii_whitespace()).take(4).map(|word| word.len() + 1).sum();
    bytes.get(header..).map_or(0, |pixels| pixels.chunks_exact(3).collect::<HashSet<_>>().len())
}

#[test]
fn a_picture_typed_on_the_command_line_is_on_the_screen() {
    let server =
        Server::start(|socket| Run::diskpipe().words("serve -f -U").arg(socket).arg("data").arg(PICTURE));
    let drive = format!("if=ide,format=raw,file=nbd:unix:{}", server.socket().display());
    if let Some(colours) = colours(&drive) {
        println!("{colours} colours");
    }
}

#[test]
fn a_picture_that_is_the_name_of_its_export_is_on_the_screen() {
    let encode = r#"diskpipe copy "$uri" - | base64 -w 0"#;
    let name = Run::diskpipe().words("serve -U - data").arg(PICTURE).args(["--run", encode]).text();
    assert_eq!(name.len(), 684);
    let server = Server::ours("info base64exportname");
    let socket = server.socket();
    let drive = format!(
        "if=ide,snapshot=on,format=raw,file.driver=nbd,file.server.type=unix,file.server.path={},file.export={name}",
        socket.display()
    );
    if let Some(colours) = colours(&drive) {
        println!("{colours} colours");
    }
}
