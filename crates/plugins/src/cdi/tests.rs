use super::*;
use crate::common::model;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;

/// A directory in the layout of the OCI.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Layout {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        Layout(dir)
    }

    fn blob(&self, content: &[u8]) -> Value {
        let digest: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        fs::write(self.0.path().join("blobs/sha256").join(&digest), content).unwrap();
        json!({"digest": format!("sha256:{digest}"), "size": content.len()})
    }

    fn image(&self, layers: &[&[u8]]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(layer)).collect();
        self.blob(json!({"schemaVersion": 2, "layers": layers}).to_string().as_bytes())
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
    }

    fn open(&self, more: &[(&str, &str)]) -> Result<Vec<u8>> {
        let layout = self.0.path().display().to_string();
        let args: Vec<_> = std::iter::once(("layout", layout.as_str())).chain(more.iter().copied()).collect();
        let disk = model::open::<Cdi>(&args)?;
        assert!(!disk.facts().write);
        Ok(model::bytes(&*disk, 0, disk.facts().size))
    }

    fn refused(&self, more: &[(&str, &str)]) -> String {
        let error = self.open(more).unwrap_err().to_string();
        error.replace(&*self.0.path().display().to_string(), "DIR")
    }
}

/// A descriptor with one more member.
fn with(mut descriptor: Value, member: &str, value: Value) -> Value {
    descriptor[member] = value;
    descriptor
}

#[test]
fn a_layer_is_served_as_it_is() {
    let layout = Layout::new();
    layout.index(&[layout.image(&[b"first layer", b"second"])]);
    assert_eq!(layout.open(&[]).unwrap(), b"first layer");
    assert_eq!(layout.open(&[("layer", "1")]).unwrap(), b"second");
    let error = layout.refused(&[("layer", "2")]);
    assert_eq!(error, "layout=DIR: layer=2: the image has 2 layers, counted from 0");
}

#[test]
fn images_are_told_apart_by_tag_digest_and_platform() {
    let layout = Layout::new();
    let named = |content: &[u8], tag: &str| {
        let annotations = json!({"org.opencontainers.image.ref.name": tag});
        with(layout.image(&[content]), "annotations", annotations)
    };
    let old = named(b"old", "v1");
    let digest = old["digest"].as_str().unwrap().to_owned();
    layout.index(&[old, named(b"new", "v2")]);
    assert_eq!(layout.open(&[("name", "v2")]).unwrap(), b"new");
    assert_eq!(layout.open(&[("name", &format!("@{digest}"))]).unwrap(), b"old");
    assert!(
        layout.refused(&[]).ends_with("there is not one image, but these: v1, v2; name one of them by name=")
    );
    assert!(layout.refused(&[("name", "v3")]).ends_with("there is no image \"v3\", but v1, v2"));
    // A list in the list, for several kinds of computers.
    let on = |content: &[u8], architecture: &str| {
        let platform = json!({"os": "linux", "architecture": architecture});
        with(layout.image(&[content]), "platform", platform)
    };
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let inner = json!({"manifests": [on(b"other", "s390x"), on(b"this", here)]});
    layout.index(&[layout.blob(inner.to_string().as_bytes())]);
    assert_eq!(layout.open(&[]).unwrap(), b"this");
}

#[test]
fn what_is_damaged_forged_or_missing_is_not_served() {
    let layout = Layout::new();
    let path = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        layout.0.path().join("blobs").join(digest)
    };
    layout.index(&[layout.image(&[b"content"])]);
    let layer = path(&layout.blob(b"content"));
    fs::write(&layer, "contenT").unwrap();
    assert!(layout.refused(&[]).ends_with("the file has another digest, so it is damaged or forged"));
    fs::write(&layer, "content and more").unwrap();
    assert!(layout.refused(&[]).ends_with(": 16 bytes, not 7 as the image says"));
    fs::remove_file(&layer).unwrap();
    assert!(layout.refused(&[]).ends_with(": No such file or directory"));
    let manifest = layout.image(&[b"x"]);
    fs::write(path(&manifest), "{}").unwrap();
    layout.index(&[manifest]);
    assert!(layout.refused(&[]).contains("the list of layers: sha256:"));
    for digest in
        ["sha256:../../../etc/passwd", "md5:00", "", "sha256:", &format!("sha256:{}", "A".repeat(64))]
    {
        layout.index(&[json!({"digest": digest})]);
        assert!(layout.refused(&[]).contains("digest "), "{digest}");
    }
    layout.index(&[]);
    assert!(layout.refused(&[]).contains("there is not one image"));
    fs::write(layout.0.path().join("index.json"), "[").unwrap();
    assert!(layout.refused(&[]).contains("index.json: not JSON"));
    fs::remove_file(layout.0.path().join("index.json")).unwrap();
    assert!(layout.refused(&[]).contains("so there are no images"));
}

#[test]
fn parameters_are_checked() {
    let refused = |args: &[(&str, &str)]| model::open::<Cdi>(args).err().unwrap().to_string();
    assert_eq!(refused(&[]), "you must supply the name of an image, or the layout= parameter");
    assert_eq!(refused(&[("name", "--help")]), "name=--help: not the name of an image");
    assert_eq!(refused(&[("layout", "/no/such")]), "layout=/no/such: there is no such directory");
}

proptest! {
    #[test]
    fn no_list_makes_it_panic(index in "\\PC{0,60}|\\{\"manifests\": ?\\[?\\{?(\"digest\"|\"size\"|null|[0-9]|[:,\\[\\]{}\"])*") {
        let layout = Layout::new();
        fs::write(layout.0.path().join("index.json"), &index).unwrap();
        prop_assert!(layout.open(&[]).is_err());
    }
}
