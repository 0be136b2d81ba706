//! NBD URIs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::Uri;

fuzz_target!(|text: &str| {
    match text.parse::<Uri>() {
        Ok(uri) => {
            assert!(Uri::is_meant(text));
            let known = Uri { ignored: Vec::new(), ..uri };
            assert_eq!(known.to_string().parse::<Uri>().as_ref(), Ok(&known));
            assert_eq!(known.with_slash().parse::<Uri>().as_ref(), Ok(&known));
        }
        Err(error) => assert!(error.to_string().len() > text.len()),
    }
});
