//! Which versions, ciphers and key exchanges to offer: a subset of GnuTLS's priority strings, and what they are called
//! in OpenSSL.
//!
//! Understood: a keyword (`NORMAL`, `PFS`, `SECURE256`, ...; `@NAME,...` counts as `NORMAL`), then, separated by colons, `+` or `-` (or
//! `!`) and `VERS-TLS1.2`, `VERS-TLS1.3`, `VERS-ALL`; a cipher or `CIPHER-ALL`; a key exchange or `KX-ALL`; a MAC or `MAC-ALL`;
//! `GROUP-...`. Anything else is an error, because a restriction that is not kept is worse than none.

/// What OpenSSL is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) tls12: bool,
    pub(super) tls13: bool,
    /// Cipher suites of TLS 1.2, best first.
    pub(super) list12: String,
    /// Cipher suites of TLS 1.3, best first.
    pub(super) list13: String,
    /// `None`: OpenSSL's own choice.
    pub(super) groups: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20,
    Aes128Cbc,
    Aes256Cbc,
}
use Cipher::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm, ChaCha20};

const CIPHERS: [(&str, Cipher); 5] = [
    ("AES-128-GCM", Aes128Gcm),
    ("AES-256-GCM", Aes256Gcm),
    ("CHACHA20-POLY1305", ChaCha20),
    ("AES-128-CBC", Aes128Cbc),
    ("AES-256-CBC", Aes256Cbc),
];
/// What GnuTLS has beside them, of which we never offer anything: taking it away is no news.
const NEVER: [&str; 11] = [
    "3DES-CBC",
    "ARCFOUR-128",
    "AES-128-CCM",
    "AES-256-CCM",
    "AES-128-CCM-8",
    "AES-256-CCM-8",
    "CAMELLIA-128-GCM",
    "CAMELLIA-256-GCM",
    "CAMELLIA-128-CBC",
    "CAMELLIA-256-CBC",
    "NULL",
];

#[derive(Clone, Copy, PartialEq)]
enum Kx {
    EcdheEcdsa,
    EcdheRsa,
    DheRsa,
    Rsa,
    EcdhePsk,
    DhePsk,
    Psk,
}

const KXS: [(&str, Kx); 7] = [
    ("ECDHE-ECDSA", Kx::EcdheEcdsa),
    ("ECDHE-RSA", Kx::EcdheRsa),
    ("DHE-RSA", Kx::DheRsa),
    ("RSA", Kx::Rsa),
    ("ECDHE-PSK", Kx::EcdhePsk),
    ("DHE-PSK", Kx::DhePsk),
    ("PSK", Kx::Psk),
];

impl Kx {
    fn is_psk(self) -> bool {
        matches!(self, Kx::EcdhePsk | Kx::DhePsk | Kx::Psk)
    }
}

const MACS: [&str; 4] = ["AEAD", "SHA1", "SHA256", "SHA384"];

const GROUPS: [(&str, &str); 6] = [
    ("X25519", "X25519"),
    ("SECP256R1", "P-256"),
    ("X448", "X448"),
    ("SECP384R1", "P-384"),
    ("SECP521R1", "P-521"),
    ("FFDHE2048", "ffdhe2048"),
];

/// TLS 1.2, by key exchange from best to worst. CBC stands last of all.
const SUITES12: [(&str, Kx, Cipher, &str); 28] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", Kx::EcdheEcdsa, Aes128Gcm, "AEAD"),
    ("ECDHE-RSA-AES128-GCM-SHA256", Kx::EcdheRsa, Aes128Gcm, "AEAD"),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", Kx::EcdheEcdsa, Aes256Gcm, "AEAD"),
    ("ECDHE-RSA-AES256-GCM-SHA384", Kx::EcdheRsa, Aes256Gcm, "AEAD"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", Kx::EcdheEcdsa, ChaCha20, "AEAD"),
    ("ECDHE-RSA-CHACHA20-POLY1305", Kx::EcdheRsa, ChaCha20, "AEAD"),
    ("ECDHE-PSK-CHACHA20-POLY1305", Kx::EcdhePsk, ChaCha20, "AEAD"),
    ("DHE-RSA-AES128-GCM-SHA256", Kx::DheRsa, Aes128Gcm, "AEAD"),
    ("DHE-PSK-AES128-GCM-SHA256", Kx::DhePsk, Aes128Gcm, "AEAD"),
    ("DHE-RSA-AES256-GCM-SHA384", Kx::DheRsa, Aes256Gcm, "AEAD"),
    ("DHE-PSK-AES256-GCM-SHA384", Kx::DhePsk, Aes256Gcm, "AEAD"),
    ("DHE-RSA-CHACHA20-POLY1305", Kx::DheRsa, ChaCha20, "AEAD"),
    ("DHE-PSK-CHACHA20-POLY1305", Kx::DhePsk, ChaCha20, "AEAD"),
    ("ECDHE-ECDSA-AES128-SHA256", Kx::EcdheEcdsa, Aes128Cbc, "SHA256"),
    ("ECDHE-RSA-AES128-SHA256", Kx::EcdheRsa, Aes128Cbc, "SHA256"),
    ("ECDHE-PSK-AES128-CBC-SHA256", Kx::EcdhePsk, Aes128Cbc, "SHA256"),
    ("ECDHE-ECDSA-AES256-SHA384", Kx::EcdheEcdsa, Aes256Cbc, "SHA384"),
    ("ECDHE-RSA-AES256-SHA384", Kx::EcdheRsa, Aes256Cbc, "SHA384"),
    ("ECDHE-PSK-AES256-CBC-SHA384", Kx::EcdhePsk, Aes256Cbc, "SHA384"),
    ("DHE-RSA-AES128-SHA256", Kx::DheRsa, Aes128Cbc, "SHA256"),
    ("DHE-RSA-AES256-SHA256", Kx::DheRsa, Aes256Cbc, "SHA256"),
    ("AES128-GCM-SHA256", Kx::Rsa, Aes128Gcm, "AEAD"),
    ("PSK-AES128-GCM-SHA256", Kx::Psk, Aes128Gcm, "AEAD"),
    ("AES256-GCM-SHA384", Kx::Rsa, Aes256Gcm, "AEAD"),
    ("PSK-AES256-GCM-SHA384", Kx::Psk, Aes256Gcm, "AEAD"),
    ("PSK-CHACHA20-POLY1305", Kx::Psk, ChaCha20, "AEAD"),
    ("PSK-AES128-CBC-SHA256", Kx::Psk, Aes128Cbc, "SHA256"),
    ("PSK-AES256-CBC-SHA384", Kx::Psk, Aes256Cbc, "SHA384"),
];

/// TLS 1.3. External keys work only with suites of SHA-256.
const SUITES13: [(&str, Cipher, bool); 3] = [
    ("TLS_AES_128_GCM_SHA256", Aes128Gcm, true),
    ("TLS_AES_256_GCM_SHA384", Aes256Gcm, false),
    ("TLS_CHACHA20_POLY1305_SHA256", ChaCha20, true),
];

/// What is allowed so far.
struct Allowed {
    tls12: bool,
    tls13: bool,
    ciphers: Vec<Cipher>,
    kxs: Vec<Kx>,
    macs: Vec<&'static str>,
    groups: Option<Vec<&'static str>>,
}

/// What to offer: for pre-shared keys or for certificates. Without a string: everything that is safe, the fastest first.
///
/// # Errors
/// A sentence: the string is not understood, or leaves nothing.
pub(super) fn choose(priority: Option<&str>, psk: bool) -> Result<Choice, String> {
    let text = priority.unwrap_or("NORMAL");
    let bad = |word: &str, why: &str| format!("tls-priority={text}: {word}: {why}");
    let mut words = text.split(':').filter(|word| !word.is_empty()).peekable();
    let keyword = words.next_if(|word| !word.starts_with(['+', '-', '!', '%'])).unwrap_or("NORMAL");
    let mut allowed =
        Allowed::by_keyword(keyword).ok_or_else(|| bad(keyword, "not a keyword such as NORMAL"))?;
    for word in words {
        match word.split_at(1) {
            // Of GnuTLS's habits none changes what is agreed on here.
            ("%", _) => {}
            ("+", what) => allowed.add(what).map_err(|why| bad(word, why))?,
            ("-" | "!", what) => allowed.remove(what).map_err(|why| bad(word, why))?,
            _ => return Err(bad(word, "does not begin with + or -")),
        }
    }
    let choice = allowed.choice(psk);
    if !(choice.tls12 || choice.tls13) {
        let keys = if psk { "pre-shared keys" } else { "certificates" };
        return Err(format!("tls-priority={text}: leaves nothing that works with {keys}"));
    }
    Ok(choice)
}

/// Whether this processor has instructions for AES. Without, ChaCha20 is the faster cipher.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn add_once<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

impl Allowed {
    fn by_keyword(keyword: &str) -> Option<Allowed> {
        let mut all = Allowed {
            tls12: true,
            tls13: true,
            ciphers: CIPHERS.map(|(_, cipher)| cipher).to_vec(),
            kxs: KXS.map(|(_, kx)| kx).to_vec(),
            macs: MACS.to_vec(),
            groups: None,
        };
        if !has_aes() {
            all.ciphers.retain(|cipher| *cipher != ChaCha20);
            all.ciphers.insert(0, ChaCha20);
        }
        match keyword {
            "NORMAL" | "DEFAULT" | "SYSTEM" | "PERFORMANCE" | "SECURE128" | "LEGACY" => {}
            "PFS" => all.kxs.retain(|kx| !matches!(kx, Kx::Rsa | Kx::Psk)),
            "SECURE192" | "SECURE256" => {
                all.ciphers.retain(|cipher| matches!(cipher, Aes256Gcm | ChaCha20 | Aes256Cbc));
            }
            "NONE" => {
                let (ciphers, kxs, macs) = (Vec::new(), Vec::new(), Vec::new());
                all = Allowed { tls12: false, tls13: false, ciphers, kxs, macs, groups: None };
            }
            // A name that the system's configuration of GnuTLS gives a meaning.
            _ if keyword.starts_with('@') => {}
            _ => return None,
        }
        Some(all)
    }

    fn add(&mut self, what: &str) -> Result<(), &'static str> {
        if let Some(cipher) = find(&CIPHERS, what) {
            add_once(&mut self.ciphers, cipher);
        } else if let Some(kx) = find(&KXS, what) {
            add_once(&mut self.kxs, kx);
        } else if let Some(mac) = MACS.iter().find(|mac| **mac == what) {
            add_once(&mut self.macs, mac);
        } else if let Some(group) = group(what) {
            let list = self.groups.get_or_insert_with(Vec::new);
            match group {
                "ALL" => GROUPS.iter().for_each(|(_, group)| add_once(list, group)),
                name => add_once(list, find(&GROUPS, name).ok_or("this group is not known")?),
            }
        } else {
            match what {
                "VERS-TLS1.2" => self.tls12 = true,
                "VERS-TLS1.3" => self.tls13 = true,
                "VERS-ALL" | "VERS-TLS-ALL" => (self.tls12, self.tls13) = (true, true),
                "CIPHER-ALL" => CIPHERS.iter().for_each(|(_, cipher)| add_once(&mut self.ciphers, *cipher)),
                "KX-ALL" => KXS.iter().for_each(|(_, kx)| add_once(&mut self.kxs, *kx)),
                "MAC-ALL" => MACS.iter().for_each(|mac| add_once(&mut self.macs, *mac)),
                "COMP-NULL" | "CTYPE-X509" | "CTYPE-X.509" | "CTYPE-ALL" | "SIGN-ALL" => {}
                "VERS-SSL3.0" | "VERS-TLS1.0" | "VERS-TLS1.1" => return Err("too old to be safe"),
                _ => return Err("not understood"),
            }
        }
        Ok(())
    }

    fn remove(&mut self, what: &str) -> Result<(), &'static str> {
        if let Some(gone) = find(&CIPHERS, what) {
            self.ciphers.retain(|cipher| *cipher != gone);
        } else if let Some(gone) = find(&KXS, what) {
            self.kxs.retain(|kx| *kx != gone);
        } else if MACS.contains(&what) {
            self.macs.retain(|mac| *mac != what);
        } else if let Some(group) = group(what) {
            let list = self.groups.get_or_insert_with(|| GROUPS.map(|(_, group)| group).to_vec());
            match group {
                "ALL" => list.clear(),
                name => {
                    let gone = find(&GROUPS, name);
                    list.retain(|group| Some(*group) != gone);
                }
            }
        } else {
            match what {
                "VERS-TLS1.2" => self.tls12 = false,
                "VERS-TLS1.3" => self.tls13 = false,
                "VERS-ALL" | "VERS-TLS-ALL" => (self.tls12, self.tls13) = (false, false),
                "CIPHER-ALL" => self.ciphers.clear(),
                "KX-ALL" => self.kxs.clear(),
                "MAC-ALL" => self.macs.clear(),
                "MD5" | "SHA224" | "COMP-ALL" | "COMP-NULL" => {}
                _ if what.starts_with("VERS-") || what.starts_with("ANON") || NEVER.contains(&what) => {}
                _ => return Err("not understood"),
            }
        }
        Ok(())
    }

    fn choice(&self, psk: bool) -> Choice {
        // In the order of the ciphers as they were asked for; within one, the best key exchange first.
        let gcm_first = self.ciphers.iter().filter(|cipher| !matches!(cipher, Aes128Cbc | Aes256Cbc));
        let cbc_last = self.ciphers.iter().filter(|cipher| matches!(cipher, Aes128Cbc | Aes256Cbc));
        let ciphers: Vec<Cipher> = gcm_first.chain(cbc_last).copied().collect();
        let forward = |kx: Kx| !matches!(kx, Kx::Rsa | Kx::Psk);
        let mut list12: Vec<&str> = Vec::new();
        for secret_forward in [true, false] {
            for cipher in &ciphers {
                let suites = SUITES12.iter().filter(|(_, kx, of, mac)| {
                    of == cipher
                        && forward(*kx) == secret_forward
                        && kx.is_psk() == psk
                        && self.kxs.contains(kx)
                        && self.macs.contains(mac)
                });
                list12.extend(suites.map(|(name, ..)| *name));
            }
        }
        let aead = self.macs.contains(&"AEAD");
        let list13 =
            |cipher: &Cipher| SUITES13.iter().find(|(_, of, sha256)| of == cipher && (*sha256 || !psk));
        let list13: Vec<&str> = ciphers.iter().filter_map(list13).map(|(name, ..)| *name).collect();
        Choice {
            tls12: self.tls12 && !list12.is_empty(),
            tls13: self.tls13 && aead && !list13.is_empty(),
            list12: list12.join(":"),
            list13: list13.join(":"),
            groups: self.groups.as_ref().filter(|groups| !groups.is_empty()).map(|groups| groups.join(":")),
        }
    }
}

/// The name in `GROUP-NAME`, or in `CURVE-NAME`, as it was once written.
fn group(word: &str) -> Option<&str> {
    word.strip_prefix("GROUP-").or(word.strip_prefix("CURVE-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_is_everything_with_fast_ciphers_first() {
        let choice = choose(None, false).unwrap();
        assert_eq!(choice, choose(Some("NORMAL"), false).unwrap());
        assert_eq!(choice, choose(Some("@NBDKIT,SYSTEM"), false).unwrap());
        assert!(choice.tls12 && choice.tls13);
        if has_aes() {
            assert!(choice.list13.starts_with("TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"));
            assert!(choice.list12.starts_with("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"));
        }
        assert!(!choice.list12.contains("PSK") && choice.list12.contains("AES128-GCM-SHA256"));
    }

    #[test]
    fn keys_have_their_own_suites_and_only_those_of_sha256_in_tls_13() {
        let choice = choose(Some("NORMAL:+PSK:+ECDHE-PSK:+DHE-PSK:%COMPAT"), true).unwrap();
        assert!(choice.list12.split(':').all(|suite| suite.contains("PSK")), "{}", choice.list12);
        assert!(!choice.list13.contains("SHA384"), "{}", choice.list13);
    }

    #[test]
    fn versions_ciphers_and_key_exchanges_are_restricted() {
        let only = |text| choose(Some(text), false).unwrap();
        let choice = only("NORMAL:-VERS-ALL:+VERS-TLS1.2");
        assert!(choice.tls12 && !choice.tls13);
        let choice = only("NORMAL:-VERS-TLS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305");
        assert_eq!((choice.tls12, choice.list13.as_str()), (false, "TLS_CHACHA20_POLY1305_SHA256"));
        let choice = only("NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM:-KX-ALL:+ECDHE-RSA:-3DES-CBC");
        assert_eq!(choice.list12, "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES256-GCM-SHA384");
        assert_eq!(only("NORMAL:-GROUP-ALL:+GROUP-SECP384R1").groups.as_deref(), Some("P-384"));
        assert!(!only("PFS").list12.split(':').any(|suite| suite == "AES128-GCM-SHA256"));
    }

    #[test]
    fn what_is_not_understood_or_leaves_nothing_is_told() {
        let error = |text, psk| choose(Some(text), psk).unwrap_err();
        assert_eq!(error("ODD", false), "tls-priority=ODD: ODD: not a keyword such as NORMAL");
        assert_eq!(error("NORMAL:+FOO", false), "tls-priority=NORMAL:+FOO: +FOO: not understood");
        assert!(error("NORMAL:+VERS-TLS1.0", false).ends_with("too old to be safe"));
        assert!(error("NORMAL:FOO", false).ends_with("FOO: does not begin with + or -"));
        let text = "NORMAL:-KX-ALL:+ECDHE-RSA:-VERS-TLS1.3";
        assert!(error(text, true).ends_with("leaves nothing that works with pre-shared keys"));
    }
}
