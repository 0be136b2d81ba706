//! Command lines as people type them.

use super::*;

/// Splits at blanks; `'...'` keeps them.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
        } else {
            for (j, word) in part.split(' ').enumerate() {
                if j > 0 {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push_str(word);
            }
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

fn parse(line: &str) -> ServeOptions {
    ServeOptions::parse(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    ServeOptions::parse(words(line)).expect_err(line).0
}

fn tcp(port: u16) -> Listen {
    Listen::Tcp { host: None, port, family: Family::Any }
}

#[test]
fn the_declaration_is_consistent() {
    command().debug_assert();
}

#[test]
fn a_plugin_alone_is_served_in_the_background_on_the_nbd_port() {
    let options = parse("file disk.img");
    assert_eq!((options.what, options.listen), (What::Serve, tcp(10809)));
    assert_eq!((options.plugin.as_deref(), options.foreground), (Some("file"), false));
    assert_eq!(options.arguments, ["disk.img"]);
    assert!(options.structured_replies && options.meta_contexts && !options.read_only && !options.oldstyle);
}

#[test]
fn options_may_stand_anywhere_before_two_dashes() {
    for line in [
        "-U - --filter=partition --filter=xz file disk.img.xz partition=1 -r",
        "file -r disk.img.xz --filter partition partition=1 --filter xz -U -",
        "--filter=partition file disk.img.xz -rU- partition=1 --filter=xz",
        "-U - -r --filter=partition --filter=xz -- file disk.img.xz partition=1",
    ] {
        let options = parse(line);
        assert_eq!(options.filters, ["partition", "xz"], "{line}");
        assert_eq!(options.plugin.as_deref(), Some("file"), "{line}");
        assert_eq!(options.arguments, ["disk.img.xz", "partition=1"], "{line}");
        assert_eq!((options.listen, options.read_only), (Listen::PrivateUnix, true), "{line}");
    }
    assert_eq!(parse("-U - -- data --run -x").arguments, ["--run", "-x"]);
}

#[test]
fn single_letters_cluster_and_take_values_in_place() {
    let options = parse("-fvU - memory 1M");
    assert!(options.foreground && options.verbose);
    assert_eq!(options.listen, Listen::PrivateUnix);
    assert_eq!(parse("-U- memory 1M").listen, Listen::PrivateUnix);
    assert_eq!(parse("-p20809 memory 1M").listen, tcp(20809));
    assert_eq!(parse("-U/tmp/s memory 1M").listen, Listen::Unix("/tmp/s".into()));
    assert_eq!(parse("--unix=- memory 1M").listen, Listen::PrivateUnix);
    assert_eq!(parse("--unix - memory 1M").listen, Listen::PrivateUnix);
}

#[test]
fn long_options_may_be_abbreviated() {
    assert!(parse("--verb -U - memory 1M").verbose);
    assert_eq!(parse("-U - memory --ru true 1M").run.as_deref(), Some("true"));
    assert_eq!(parse("-U - memory 1M --exportn=x").export, "x");
    assert!(parse("--foregr memory 1M").foreground);
    assert!(refused("--ex x memory 1M").contains("--ex"));
}

#[test]
fn options_have_their_other_names() {
    for line in ["-e x", "--export=x", "--export-name=x", "--exportname x"] {
        assert_eq!(parse(&format!("memory 1M {line}")).export, "x", "{line}");
    }
    assert!(parse("--read-only memory 1M").read_only && parse("--readonly memory 1M").read_only);
    assert!(parse("--no-fork memory 1M").foreground);
    assert!(parse("--old-style memory 1M").oldstyle && parse("-o memory 1M").oldstyle);
    assert!(!parse("-o memory 1M --new-style").oldstyle && !parse("-o -n memory 1M").oldstyle);
    assert_eq!(parse("--stdin memory 1M").listen, Listen::Stdio);
    assert_eq!(parse("--pid-file=p memory 1M").pid_file, parse("-P p memory 1M").pid_file);
    let host = |line| match parse(line).listen {
        Listen::Tcp { host, .. } => host,
        other => panic!("{other:?}"),
    };
    for line in ["-i ::1 memory 1M", "--ip-addr ::1 memory 1M", "--ipaddr=::1 memory 1M"] {
        assert_eq!(host(line).as_deref(), Some("::1"), "{line}");
    }
}

#[test]
fn repeats_are_allowed_and_the_last_counts() {
    let options = parse("-f -f -r -r -v -v memory 1M -p 1 -p 2");
    assert_eq!(options.listen, tcp(2));
    let family = |line| match parse(line).listen {
        Listen::Tcp { family, .. } => family,
        other => panic!("{other:?}"),
    };
    assert_eq!(family("-4 -6 memory 1M"), Family::V6);
    assert_eq!(family("-6 -4 memory 1M"), Family::V4);
    assert_eq!(family("--ipv4-only memory 1M"), Family::V4);
}

#[test]
fn commands_and_data_reach_us_unchanged() {
    let options = parse("-U - data ' ( 0x55 0xAA )*2048 ' --run 'nbdcopy $uri - | hexdump -C'");
    assert_eq!(options.arguments, [" ( 0x55 0xAA )*2048 "]);
    assert_eq!(options.run.as_deref(), Some("nbdcopy $uri - | hexdump -C"));
    let options = parse("eval get_size='echo 1M' pread='dd if=/dev/zero count=$3' -U - data='@0x1fe 1'");
    assert_eq!(options.arguments, ["get_size=echo 1M", "pread=dd if=/dev/zero count=$3", "data=@0x1fe 1"]);
    assert_eq!(parse("sh - -U -").arguments, ["-"]);
    assert_eq!(parse("memory 1M --run '-x'").run.as_deref(), Some("-x"));
    assert_eq!(parse("memory 1M --run true").listen, Listen::PrivateUnix);
    assert!(matches!(parse("-p 1 memory 1M --run true").listen, Listen::Tcp { port: 1, .. }));
    assert_eq!(ServeOptions::parse(["memory", "1M", "--run", ""]).unwrap().run.as_deref(), Some(""));
}

#[test]
fn the_manuals_command_lines_are_understood() {
    for (line, plugin, arguments) in [
        ("-r curl https://example.com/disk.img", "curl", 1),
        ("ssh host=example.com /var/tmp/disk.img", "ssh", 2),
        ("memory 1T", "memory", 1),
        ("floppy dir/", "floppy", 1),
        ("--filter=error --filter=delay memory 100M error-rate=10% rdelay=1 wdelay=1", "memory", 4),
        ("sh -", "sh", 1),
        ("info base64exportname", "info", 1),
        ("-U - sparse-random 1T --run 'nbdcopy \"$uri\" \"$uri\"'", "sparse-random", 1),
        ("-U - file data.tar --filter=tar tar-entry=disk.img --run 'qemu-img convert -n d $nbd'", "file", 2),
        ("-U - curl http://h/x --filter=tar --filter=xz tar-entry=disk.qcow2", "curl", 2),
        ("-f --exit-with-parent vddk libdir=x file=y.vmdk", "vddk", 2),
        (
            "/usr/lib/nbdkit/plugins/nbdkit-file-plugin.so d",
            "/usr/lib/nbdkit/plugins/nbdkit-file-plugin.so",
            1,
        ),
        ("-s --exit-with-parent python script=x -D python.x=1 -D nbdkit.backend.datapath=0", "python", 1),
        ("--tls=off -U - null 1M", "null", 1),
        ("-t 1 --log=null --swap --mask-handshake=0x0 --no-sr --no-mc null 1M", "null", 1),
    ] {
        let options = parse(line);
        assert_eq!((options.plugin.as_deref(), options.arguments.len()), (Some(plugin), arguments), "{line}");
    }
}

#[test]
fn what_implies_the_foreground() {
    for line in ["-f null", "-s null", "--run true null", "--exit-with-parent null"] {
        assert!(parse(line).foreground, "{line}");
    }
}

#[test]
fn printing_options_need_no_plugin_and_win_over_serving() {
    for (line, what) in [
        ("--help", What::Help),
        ("memory --help", What::Help),
        ("--help memory --dump-plugin", What::Help),
        ("-V", What::Version),
        ("--version --filter=delay memory", What::Version),
        ("--dump-config", What::DumpConfig),
        ("memory --dump-plugin", What::DumpPlugin),
        ("--short-options", What::ShortOptions),
        ("--long-options", What::LongOptions),
        ("--exit-with-parent --version", What::Version),
    ] {
        assert_eq!(parse(line).what, what, "{line}");
    }
}

#[test]
fn contradictions_are_told() {
    assert_eq!(refused("-s -U - null"), "-s and -U cannot be used together: clients connect in one place");
    assert_eq!(refused("-U - -p 1 null"), "-U and -p cannot be used together: clients connect in one place");
    assert_eq!(refused("-s -p 1 null"), "-s and -p cannot be used together: clients connect in one place");
    assert_eq!(
        refused("-U - --vsock null"),
        "-U and --vsock cannot be used together: clients connect in one place"
    );
    assert!(refused("-s --run true null").starts_with("-s and --run cannot"));
    assert!(refused("-s --dump-plugin null").starts_with("-s and --dump-plugin cannot"));
    assert!(refused("-s --print-uri null").starts_with("-s and --print-uri cannot"));
    assert_eq!(parse("-i ::1 -U - null").unused_ipaddr.as_deref(), Some("::1"));
    assert_eq!(parse("-i ::1 --vsock null").unused_ipaddr.as_deref(), Some("::1"));
    assert_eq!(parse("-i ::1 null").unused_ipaddr, None);
    assert!(refused("--config=x null").starts_with("a plugin and --config cannot"));
    assert!(refused("--config=x --filter=cow").starts_with("--filter and --config cannot"));
    assert!(refused("--config=x -s").starts_with("-s and --config cannot"));
    assert_eq!(parse("--vsock -p 5 null").listen, Listen::Vsock { port: 5 });
}

#[test]
fn newer_options_are_known() {
    let options = parse("--timeout=1.5s --idle-timeout=0 --keepalive --name=n --print-uri -u a -g b null");
    assert_eq!((options.timeout, options.idle_timeout), (Some(Duration::from_millis(1500)), None));
    assert!(options.keepalive && options.print_uri);
    assert_eq!((options.user.as_deref(), options.group.as_deref()), (Some("a"), Some("b")));
    assert_eq!(options.name.as_deref(), Some("n"));
    assert_eq!(parse("--log=/x/y null").log, Some(LogTo::File("/x/y".into())));
    assert_eq!(parse("--log=default null").log, None);
    assert_eq!(parse("--log-format=json null").log_format, LogFormat::Json);
    assert!(!parse("--no-structured-replies null").structured_replies);
    assert!(!parse("--no-meta-contexts null").meta_contexts);
    assert_eq!(parse("--selinux-label=x null").selinux_label.as_deref(), Some("x"));
    let options = parse("--config=exports.toml -p 0");
    assert_eq!((options.config, options.plugin), (Some("exports.toml".into()), None));
    assert_eq!(parse("--explain null").what, What::Explain);
}

#[test]
fn the_option_that_says_where_to_listen_is_known() {
    for (line, option) in [
        ("-p 1", "-p"),
        ("-U -", "-U"),
        ("-i ::1", "-i"),
        ("-s", "-s"),
        ("--run x", "--run"),
        ("--vsock", "--vsock"),
    ] {
        assert_eq!(parse(&format!("{line} null")).listen_option, Some(option));
    }
    assert_eq!(parse("-4 null").listen_option, None);
}

#[test]
fn bad_values_name_the_option() {
    assert_eq!(
        refused("-p abc null"),
        "--port=abc: not a port number from 0 to 65535, nor the name of a service"
    );
    assert_eq!(
        refused("-p 99999 null"),
        "--port=99999: not a port number from 0 to 65535, nor the name of a service"
    );
    assert_eq!(refused("-t abc null"), "--threads=abc: not a whole number such as 10, 0xa or 012");
    assert!(refused("--mask-handshake=x null").starts_with("--mask-handshake=x: not a whole number"));
    assert!(refused("--log=foo null").starts_with("--log=foo: not one of stderr, syslog, null or default"));
    assert_eq!(refused("--log-format=x null"), "--log-format=x: not one of text or json");
    assert_eq!(refused("--timeout=x null"), "--timeout=x: not a time such as 2, 1.5s or 50ms");
    assert_eq!(refused("--idle-timeout=-1 null"), "--idle-timeout=-1: a time cannot be negative");
    for flag in ["foo", "foo=1", "foo.=1", ".x=1", "foo.x=y"] {
        assert!(refused(&format!("-D {flag} null")).contains("must have the format NAME.FLAG=N"), "{flag}");
    }
    let flag = &parse("-D nbdkit.backend.datapath=0 null").debug[0];
    assert_eq!((flag.component.as_str(), flag.flag.as_str(), flag.value), ("nbdkit", "backend.datapath", 0));
    assert_eq!(parse("--mask-handshake=3 null").mask_handshake, Some(3));
    assert_eq!(parse("-t 0 null").threads, None);
}

#[test]
fn tls_has_three_ways_and_none_of_them_is_oldstyle() {
    use proto::handshake::Tls;
    assert_eq!(parse("--tls=off null").tls.when, Some(Tls::Off));
    let tls =
        parse("--tls require --tls-certificates x --tls-psk=y --tls-priority=NORMAL --tls-verify null").tls;
    assert_eq!(
        (tls.when, tls.verify_peer, tls.priority.as_deref()),
        (Some(Tls::Require), true, Some("NORMAL"))
    );
    assert_eq!((tls.certificates, tls.psk), (Some("x".into()), Some("y".into())));
    assert!(refused("--tls=maybe null").contains("off, on and require"));
    assert!(refused("-o --tls=require null").contains("the oldstyle protocol has no TLS"));
}

#[test]
fn missing_things_are_told() {
    assert_eq!(refused(""), "no plugin is given: try --help");
    assert_eq!(refused("-f -U -"), "no plugin is given: try --help");
    assert!(refused("--dump-plugin").contains("--dump-config"));
    assert!(refused("--foo null").contains("--foo"));
    assert!(refused("null --filter").contains("--filter"));
}
