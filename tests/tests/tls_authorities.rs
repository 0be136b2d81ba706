//! Whom clients trust where nobody names a directory of certificates.

use e2e::Run;
use std::path::Path;

/// As it is where a public authority has signed.
#[test]
fn without_a_directory_the_authorities_of_the_system_decide() {
    let (keys, stranger) = (e2e::directory(), e2e::directory());
    for dir in [&keys, &stranger] {
        Run::diskpipe().args(["keygen", "x509"]).arg(dir.path()).end().good();
    }
    let ask = |dir: &Path| {
        let options =
            format!("--tls=require --tls-certificates={} -i 127.0.0.1 -p 0 memory 1M", keys.path().display());
        let run = Run::serve(&options, "diskpipe info --size nbds://localhost:$port/");
        run.env("SSL_CERT_FILE", dir.join("ca-cert.pem")).env("HOME", "/nonexistent").end()
    };
    ask(keys.path()).good();
    let error = ask(stranger.path()).code(1).stderr;
    let expected = "was signed by none of the authorities in those that this system trusts";
    assert!(error.contains(expected), "{error}");
}
