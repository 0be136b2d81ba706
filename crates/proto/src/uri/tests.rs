use std::path::Path;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Uri {
    text.parse().unwrap()
}

fn refusal(text: &str) -> String {
    text.parse::<Uri>().unwrap_err().to_string()
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.into(), port }
}

fn ssh(host: &str, port: Option<u16>, compress: bool, at: Remote) -> Address {
    Address::Ssh { host: host.into(), port, compress, at }
}

#[test]
fn what_ssh_would_take_for_an_option_is_no_host() {
    for text in
        ["nbd+ssh://-oProxyCommand=x", "nbd+ssh://u@-oProxyCommand=x/", "nbd+ssh://%2DoProxyCommand=x"]
    {
        assert!(refusal(text).contains("begins with a dash"), "{text}");
    }
    assert!(refusal("nbd+ssh://h?compress=maybe").contains("neither 0 nor 1"));
    assert!(refusal("nbd+ssh://h?nbd-port=x").contains("port number"));
}

#[test]
fn hosts_and_ports_are_found_and_have_defaults() {
    for (text, address) in [
        ("nbd://example.com", tcp("example.com", 10809)),
        ("nbd://example.com:/", tcp("example.com", 10809)),
        ("nbd://example.com:7/x", tcp("example.com", 7)),
        ("NBD://127.0.0.1", tcp("127.0.0.1", 10809)),
        ("nbd:///x", tcp("localhost", 10809)),
        ("nbd://", tcp("localhost", 10809)),
        ("nbd://[::1]:7/", tcp("::1", 7)),
        ("nbd://[fe80::1%25eth0]", tcp("fe80::1%eth0", 10809)),
        ("nbds://alice@example.com:7", tcp("example.com", 7)),
        ("nbd+vsock:///", Address::Vsock { cid: 2, port: 10809 }),
        ("nbds+vsock://5:99999/", Address::Vsock { cid: 5, port: 99999 }),
        ("nbd+ssh://h", ssh("h", None, false, Remote::Port(10809))),
        ("nbd+ssh://alice@h:22/x?nbd-port=7", ssh("h", Some(22), false, Remote::Port(7))),
        ("nbds+ssh://[::1]:22?compress=true", ssh("::1", Some(22), true, Remote::Port(10809))),
        ("nbd+ssh://h/?socket=/tmp/s%20t", ssh("h", None, false, Remote::Socket("/tmp/s t".into()))),
        ("nbd+unix://?socket=/tmp/s", Address::Unix("/tmp/s".into())),
        ("nbd+unix:///?socket=nbd.sock", Address::Unix("nbd.sock".into())),
        ("nbd+unix:///?socket=%00abstract", Address::Unix("\0abstract".into())),
        ("nbd+unix:///?socket=/tmp/a b%3F", Address::Unix("/tmp/a b?".into())),
    ] {
        assert_eq!(parse(text).address, address, "{text}");
    }
}

#[test]
fn the_path_without_its_first_slash_is_the_export_name() {
    for (text, export) in [
        ("nbd://example.com/disk", "disk"),
        ("nbd+unix:///disk?socket=sock", "disk"),
        ("nbd://example.com/", ""),
        ("nbd://example.com", ""),
        ("nbd://example.com//disk", "/disk"),
        ("nbd://example.com/hello%20world", "hello world"),
        ("nbd://example.com/%C3%A9%25", "é%"),
        ("nbd://example.com/a@b:c", "a@b:c"),
    ] {
        assert_eq!(parse(text).export, export, "{text}");
    }
}

#[test]
fn tls_parameters_are_read() {
    let uri = parse(
        "nbds+unix://alice@/?socket=/s&tls-certificates=certs&tls-psk-file=/k%26&tls-hostname=h&tls-verify-peer=0&tls-priority=NORMAL:-VERS-ALL:+VERS-TLS1.3&tls-type=psk&x-y=1&foo=2",
    );
    assert!(uri.tls);
    assert_eq!(uri.user.as_deref(), Some("alice"));
    assert_eq!(uri.tls_certificates.as_deref(), Some(Path::new("certs")));
    assert_eq!(uri.tls_psk_file.as_deref(), Some(Path::new("/k&")));
    assert_eq!(uri.tls_hostname.as_deref(), Some("h"));
    assert_eq!(uri.tls_priority.as_deref(), Some("NORMAL:-VERS-ALL:+VERS-TLS1.3"));
    assert_eq!((uri.tls_verify_peer, uri.tls_type), (Some(false), Some(TlsType::Psk)));
    assert_eq!(uri.ignored, ["foo"]);
}

#[test]
fn errors_are_sentences_that_begin_with_the_uri() {
    for (text, why) in [
        ("disk.img", "disk.img: not an NBD URI such as"),
        ("foo://x", "foo://x: unknown scheme “foo”"),
        ("nbd:localhost", "“nbd:” must be followed by “//”"),
        ("nbd://a:b/", "“b” is not a port number such as 10809"),
        ("nbd://a:65536/", "“65536” is not a port number"),
        ("nbd://a:+1/", "“+1” is not a port number"),
        ("nbd://::1/", "an IPv6 address stands in brackets"),
        ("nbd://[::1/", "lacks its closing bracket"),
        ("nbd://[::1]x/", "only a port may follow"),
        ("nbd://[bad]/", "“bad” is not an IPv6 address"),
        ("nbd+unix:///", "nbd+unix needs a socket"),
        ("nbd+unix:///?socket=", "the socket parameter is empty"),
        (
            "nbd://localhost/?socket=/x",
            "a socket goes with nbd+unix, nbds+unix, nbd+ssh and nbds+ssh, not with nbd",
        ),
        ("nbd+vsock://host/", "“host” is not a vsock context id"),
        ("nbd://h/%4", "a “%” without two hexadecimal digits"),
        ("nbd://h/%é1", "a “%” without two hexadecimal digits"),
        ("nbd://h/%ff", "the export name is not UTF-8"),
        ("nbd://h/%00", "the export name contains a NUL"),
        ("nbd://h/a#b", "write a “#” in a name as %23"),
        ("nbd://h/?tls-verify-peer=2", "tls-verify-peer=2: neither 0 nor 1"),
        ("nbd://h/?tls-type=none", "tls-type=none: not anon, x509 or psk"),
    ] {
        assert!(refusal(text).contains(why), "{}", refusal(text));
        assert!(refusal(text).starts_with(text));
    }
    assert!(refusal(&format!("nbd://h/{}", "x".repeat(4097))).contains("4097 bytes"));
}

#[test]
fn the_forms_of_a_servers_uri_variable_come_out() {
    let mut uri = Uri::new(tcp("localhost", 10810));
    assert_eq!(uri.to_string(), "nbd://localhost:10810");
    assert_eq!(uri.with_slash(), "nbd://localhost:10810/");
    uri.export = "a b/c?&=+'%:@é".into();
    assert_eq!(uri.to_string(), "nbd://localhost:10810/a%20b/c%3F%26%3D%2B%27%25%3A%40%C3%A9");
    uri.address = tcp("::1", 1);
    uri.export = "n".into();
    assert_eq!(uri.to_string(), "nbd://[::1]:1/n");

    let mut uri = Uri::new(Address::Unix("/tmp/a b%?&".into()));
    assert_eq!(uri.to_string(), "nbd+unix://?socket=/tmp/a%20b%25%3F%26");
    assert_eq!(uri.with_slash(), "nbd+unix:///?socket=/tmp/a%20b%25%3F%26");
    (uri.export, uri.tls, uri.user) = ("name".into(), true, Some("alice".into()));
    uri.tls_psk_file = Some("/k".into());
    assert_eq!(uri.to_string(), "nbds+unix://alice@/name?socket=/tmp/a%20b%25%3F%26&tls-psk-file=/k");

    assert_eq!(Uri::new(Address::Vsock { cid: 2, port: 10809 }).to_string(), "nbd+vsock://2:10809/");
}

#[test]
fn a_uri_is_told_from_a_file_name_by_its_scheme() {
    for text in ["nbd://h", "nbds+unix:///?socket=x", "NBD+VSOCK://", "nbd:broken"] {
        assert!(Uri::is_meant(text), "{text}");
    }
    for text in ["disk.img", "./nbd", "http://h", "c:/disk", ""] {
        assert!(!Uri::is_meant(text), "{text}");
    }
}

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        ("[a-z0-9.-]{1,20}", any::<u16>()).prop_map(|(host, port)| Address::Tcp { host, port }),
        any::<(u128, u16)>()
            .prop_map(|(ip, port)| Address::Tcp { host: Ipv6Addr::from_bits(ip).to_string(), port }),
        any::<(u32, u32)>().prop_map(|(cid, port)| Address::Vsock { cid, port }),
        ".{1,30}".prop_map(|path| Address::Unix(path.into())),
        ("[a-z0-9.][a-z0-9.-]{0,20}", any::<Option<u16>>(), any::<bool>(), any::<u16>())
            .prop_map(|(host, port, compress, at)| ssh(&host, port, compress, Remote::Port(at))),
        ("[a-z0-9.]{1,20}", ".{1,30}").prop_map(|(host, path)| ssh(
            &host,
            None,
            false,
            Remote::Socket(path.into())
        )),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    "[^\0]{0,40}"
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(
        address in any_address(),
        tls in any::<bool>(),
        export in any_name(),
        user in proptest::option::of("[^\0]{1,20}"),
        certificates in proptest::option::of(".{1,20}"),
        hostname in proptest::option::of(any_name()),
        verify in proptest::option::of(any::<bool>()),
        kind in proptest::option::of(prop_oneof![Just(TlsType::Anon), Just(TlsType::X509), Just(TlsType::Psk)]),
    ) {
        let uri = Uri {
            tls, export, user,
            tls_certificates: certificates.map(Into::into),
            tls_hostname: hostname,
            tls_verify_peer: verify,
            tls_type: kind,
            ..Uri::new(address)
        };
        prop_assert_eq!(&uri.to_string().parse::<Uri>().unwrap(), &uri);
        prop_assert_eq!(&uri.with_slash().parse::<Uri>().unwrap(), &uri);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*", tail in ".*") {
        let _ = text.parse::<Uri>();
        let _ = format!("nbd://{tail}").parse::<Uri>();
        let _ = format!("nbds+unix://{text}?{tail}").parse::<Uri>();
    }
}
