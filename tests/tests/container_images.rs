//! Layers of container images: from a directory, and from podman.

use e2e::{Run, directory, needs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Adds content under its digest, and tells that with the size, as lists have it.
fn add(store: &Path, content: &[u8]) -> String {
    let digest = Run::new("sha256sum").input(content).text()[..64].to_owned();
    fs::write(store.join(&digest), content).unwrap();
    format!(r#"{{"digest": "sha256:{digest}", "size": {}}}"#, content.len())
}

/// The flat form of an image with a tar archive as its second layer.
fn image(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let disk: Vec<u8> = (0..100_000_u32).map(|at| (at * 7) as u8).collect();
    let archive = dir.with_extension("tar");
    fs::write(dir.with_extension("raw"), &disk).unwrap();
    let name = dir.with_extension("raw").file_name().unwrap().to_owned();
    Run::new("tar").arg("-cf").arg(&archive).arg("-C").arg(dir.parent().unwrap()).arg(name).end().good();
    let layers = [add(dir, b"nothing of interest"), add(dir, &fs::read(&archive).unwrap())].join(",");
    fs::write(dir.join("manifest.json"), format!(r#"{{"schemaVersion": 2, "layers": [{layers}]}}"#)).unwrap();
}

#[test]
fn a_layer_comes_from_a_directory_as_it_is() {
    needs!("sha256sum", "tar", "nbdcopy", "cmp");
    let dir = directory();
    image(&dir.path().join("image"));
    let compare = "nbdcopy \"$uri\" copy && cmp copy image.tar && tar -tf copy";
    let serve = Run::diskpipe().words("serve cdi layout=image layer=1").args(["--run", compare]);
    assert_eq!(serve.in_directory(dir.path()).text(), "image.raw\n");
}

/// A program that answers as podman does, so that no registry is needed.
#[test]
fn an_image_is_pulled_and_saved_by_podman_and_nothing_is_left_behind() {
    needs!("sha256sum", "tar", "nbdcopy", "cmp");
    let dir = directory();
    image(&dir.path().join("image"));
    let (bin, temporary) = (dir.path().join("bin"), dir.path().join("tmp"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&temporary).unwrap();
    let podman = "#!/bin/sh\necho \"$@\" >> calls\ncase \"$*\" in\n'pull docker://x/y:1') printf 'Trying\\n%064d\\n' 7 ;;\n\
                  'save --format oci-dir -o '*' 0'*'07') cp -r image \"$5\" ;;\n*) exit 125 ;;\nesac\n";
    fs::write(bin.join("podman"), podman).unwrap();
    fs::set_permissions(bin.join("podman"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(e2e::path());
    let serve = |name: &str, run: &str| {
        let serve = Run::diskpipe().words("serve cdi layer=1").arg(name).args(["--run", run]);
        serve.env("PATH", &path).env("TMPDIR", &temporary).in_directory(dir.path()).end()
    };
    serve("docker://x/y:1", "nbdcopy \"$uri\" copy && cmp copy image.tar").good();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "temporary files are left behind");
    let refused = serve("docker://x/none", "true").code(1);
    assert!(refused.stderr.contains("podman pull: failed (exit status: 125)"), "{}", refused.stderr);
}
