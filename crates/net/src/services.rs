//! The names of services, as this system knows them.

/// The TCP port of a service by its name or alias, such as `nbd`; `None` where it has none.
pub fn service_port(name: &str) -> Option<u16> {
    find(&std::fs::read_to_string("/etc/services").ok()?, name)
}

/// In the text of `/etc/services`.
fn find(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, number) = (words.next()?, words.next()?);
        let port = number.strip_suffix("/tcp")?.parse().ok()?;
        (first == name || words.any(|alias| alias == name)).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_and_alias() {
        let text = "# comment\nssh 22/tcp\nnbd 10809/udp\nnbd\t10809/tcp  Linux-NBD # network block device\n";
        assert_eq!(find(text, "nbd"), Some(10809));
        assert_eq!(find(text, "Linux-NBD"), Some(10809));
        assert_eq!((find(text, "22"), find(text, "comment")), (None, None));
    }
}
