//! Certificates that people bring: whether they can be served, and what they say of themselves.
//!
//! [`check`] answers with everything that the platform needs to know of a chain and its key, or with the first [`Flaw`]
//! in words that say how to mend it. It fetches nothing: no missing link of a chain, no list of revoked certificates.

use std::sync::Arc;

use dozen_api::{clock::Micros, outbound};
use rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// What is wrong with a chain or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No certificate was given.
    #[error("The certificate chain holds no certificate in PEM form (-----BEGIN CERTIFICATE-----).")]
    NoCertificate,
    /// One of them is none.
    #[error("Certificate {0} of the chain cannot be read: it is damaged or not an X.509 certificate.")]
    Unreadable(usize),
    /// No key was given.
    #[error("The private key is not in PEM form (-----BEGIN PRIVATE KEY-----).")]
    NoKey,
    /// The key needs a passphrase.
    #[error(
        "The private key is protected by a passphrase, which nobody is there to type. \
         Remove it with: openssl pkey -in KEY -out KEY.plain"
    )]
    Protected,
    /// The key is of a kind that cannot be used.
    #[error("The private key cannot be used: give RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, or Ed25519.")]
    KeyKind,
    /// The key is not this certificate's.
    #[error("The private key does not belong to the certificate. Give the key that its signing request was made with.")]
    Mismatch,
    /// The key belongs to a later certificate of the chain.
    #[error(
        "The private key belongs to certificate {0} of the chain. Put that one first and after it the one that signed it, \
         and so on."
    )]
    LeafNotFirst(usize),
    /// Two neighbours do not belong together.
    #[error(
        "Certificate {0} of the chain was not signed by the one after it. Each must be followed by its signer: your own \
         certificate first, then the intermediate ones; leave out what does not belong to it."
    )]
    Order(usize),
    /// It is over.
    #[error("The certificate expired on {0}. Renew it at your certificate authority.")]
    Expired(String),
    /// It has not begun.
    #[error("The certificate is not valid before {0}. Check this machine's clock, or wait.")]
    Early(String),
    /// It is for nobody.
    #[error(
        "The certificate is for no host name. Ask your certificate authority for one with your domain's name in it."
    )]
    NoNames,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Host names in lower case that it is for, `*.example.com` among them.
    pub names: Vec<String>,
    /// Whom it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Valid from.
    pub starts_at: Micros,
    /// Valid until.
    pub expires_at: Micros,
    /// It signed itself.
    pub self_signed: bool,
}

impl Facts {
    /// Says whether it is for a host, which may be a wildcard itself.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| {
            name == host
                || match (name.strip_prefix("*."), host.split_once('.')) {
                    (Some(rest), Some((label, below))) => label != "*" && rest == below,
                    _ => false,
                }
        })
    }
}

/// A chain and a key that can be served.
#[derive(Debug)]
pub struct Checked {
    /// What the leaf says.
    pub facts: Facts,
    /// Whether an authority that this machine trusts has signed it.
    pub trusted: bool,
    /// The chain in PEM, without anything else that was in the file.
    pub chain: String,
}

/// Checks a PEM chain and its PEM key.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(chain: &str, key: &str, now: Micros) -> Result<Checked, Flaw> {
    let ders = split(chain)?;
    let facts = facts_of(&ders[0])?;
    let key = private_key(key)?;
    let parsed: Vec<X509Certificate<'_>> =
        ders.iter().enumerate().map(|(index, der)| parse(der, index)).collect::<Result<_, _>>()?;
    if !belongs(&key, &ders[0])? {
        let later = (1..ders.len()).find(|index| belongs(&key, &ders[*index]).unwrap_or(false));
        return Err(later.map_or(Flaw::Mismatch, |index| Flaw::LeafNotFirst(index + 1)));
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        let named = pair[0].issuer().as_raw() == pair[1].subject().as_raw();
        if !named || pair[0].verify_signature(Some(pair[1].public_key())).is_err() {
            return Err(Flaw::Order(index + 1));
        }
    }
    if facts.expires_at <= now {
        return Err(Flaw::Expired(dozen_api::clock::rfc3339_seconds(facts.expires_at)));
    }
    if facts.starts_at > now {
        return Err(Flaw::Early(dozen_api::clock::rfc3339_seconds(facts.starts_at)));
    }
    if facts.names.is_empty() {
        return Err(Flaw::NoNames);
    }
    let trusted = is_trusted(&ders, &facts, now);
    Ok(Checked { facts, trusted, chain: ders.iter().map(pem).collect() })
}

/// What the first certificate of a PEM chain says.
///
/// # Errors
/// When there is none.
pub fn facts(chain: &str) -> Result<Facts, Flaw> {
    facts_of(&split(chain)?[0])
}

fn split(chain: &str) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    match ders {
        Ok(ders) if !ders.is_empty() => Ok(ders),
        _ => Err(Flaw::NoCertificate),
    }
}

fn private_key(key: &str) -> Result<PrivateKeyDer<'static>, Flaw> {
    if key.contains("ENCRYPTED") {
        return Err(Flaw::Protected);
    }
    PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Flaw::NoKey)
}

fn belongs(key: &PrivateKeyDer<'static>, leaf: &CertificateDer<'static>) -> Result<bool, Flaw> {
    let key = ring::sign::any_supported_type(key).map_err(|_| Flaw::KeyKind)?;
    Ok(CertifiedKey::new(vec![leaf.clone()], key).keys_match().is_ok())
}

fn parse<'a>(der: &'a CertificateDer<'_>, index: usize) -> Result<X509Certificate<'a>, Flaw> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| Flaw::Unreadable(index + 1))
}

fn facts_of(der: &CertificateDer<'_>) -> Result<Facts, Flaw> {
    let leaf = parse(der, 0)?;
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        // What `certs:generate` makes has only this one; clients of today do not look at it.
        let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names = common.filter(|name| name.contains('.')).map(str::to_ascii_lowercase).collect();
    }
    Ok(Facts {
        names,
        subject: leaf.subject().to_string(),
        issuer: leaf.issuer().to_string(),
        starts_at: leaf.validity().not_before.timestamp().saturating_mul(1_000_000),
        expires_at: leaf.validity().not_after.timestamp().saturating_mul(1_000_000),
        self_signed: leaf.subject().as_raw() == leaf.issuer().as_raw(),
    })
}

fn is_trusted(ders: &[CertificateDer<'static>], facts: &Facts, now: Micros) -> bool {
    let Some((leaf, rest)) = ders.split_first() else { return false };
    let host = facts.names[0].replacen('*', "any", 1);
    let Ok(name) = ServerName::try_from(host) else { return false };
    let roots = outbound::roots(None);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let Ok(verifier) = verifier.build() else { return false };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_micros(now.unsigned_abs()));
    verifier.verify_server_cert(leaf, rest, &name, &[], now).is_ok()
}

fn pem(der: &CertificateDer<'_>) -> String {
    const LINE: usize = 64; // RFC 7468
    let text = data_encoding::BASE64.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / LINE + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for start in (0..text.len()).step_by(LINE) {
        pem.push_str(&text[start..text.len().min(start + LINE)]);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    const NOW: Micros = 1_800_000_000_000_000; // in January 2027

    struct Made {
        pem: String,
        key: KeyPair,
        parameters: CertificateParams,
    }

    fn parameters(name: &str, from: i32, to: i32) -> CertificateParams {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(to, 1, 1);
        parameters
    }

    fn authority(name: &str) -> Made {
        let mut parameters = parameters(name, 2020, 2040);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Made { pem: parameters.self_signed(&key).expect("a certificate").pem(), key, parameters }
    }

    fn signed(by: &Made, parameters: CertificateParams) -> Made {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&by.parameters, &by.key);
        Made { pem: parameters.signed_by(&key, &issuer).expect("a certificate").pem(), key, parameters }
    }

    fn flaw(chain: &[&Made], key: &str) -> Flaw {
        let chain: String = chain.iter().map(|made| made.pem.as_str()).collect();
        check(&chain, key, NOW).expect_err("a flaw")
    }

    #[test]
    fn a_chain_in_order_with_its_key_is_taken() {
        let root = authority("root.test");
        let leaf = signed(&root, parameters("*.Example.com", 2026, 2028));
        let chain = format!("a comment\n{}{}", leaf.pem, root.pem);
        let checked = check(&chain, &leaf.key.serialize_pem(), NOW).expect("it is good");
        assert_eq!(checked.facts.names, ["*.example.com"]);
        assert!(checked.facts.covers("www.example.com") && checked.facts.covers("*.example.com"));
        for other in ["example.com", "a.b.example.com", "www.example.org", "*.com"] {
            assert!(!checked.facts.covers(other), "{other}");
        }
        assert!(!checked.trusted && !checked.facts.self_signed);
        assert!(!checked.chain.contains("comment"));
        assert_eq!(facts(&checked.chain).expect("facts"), checked.facts);
    }

    #[test]
    fn each_flaw_is_told_from_the_others() {
        let (root, other) = (authority("root.test"), authority("other.test"));
        let leaf = signed(&root, parameters("www.example.com", 2026, 2028));
        let key = leaf.key.serialize_pem();
        assert_eq!(flaw(&[], &key), Flaw::NoCertificate);
        assert_eq!(flaw(&[&leaf], "nothing"), Flaw::NoKey);
        assert_eq!(flaw(&[&leaf], "-----BEGIN ENCRYPTED PRIVATE KEY-----"), Flaw::Protected);
        assert_eq!(flaw(&[&leaf], &other.key.serialize_pem()), Flaw::Mismatch);
        assert_eq!(flaw(&[&root, &leaf], &key), Flaw::LeafNotFirst(2));
        assert_eq!(flaw(&[&leaf, &other], &key), Flaw::Order(1));
        let old = signed(&root, parameters("www.example.com", 2024, 2026));
        assert_eq!(flaw(&[&old], &old.key.serialize_pem()), Flaw::Expired("2026-01-01T00:00:00Z".to_owned()));
        let early = signed(&root, parameters("www.example.com", 2028, 2030));
        assert_eq!(flaw(&[&early], &early.key.serialize_pem()), Flaw::Early("2028-01-01T00:00:00Z".to_owned()));
    }

    #[test]
    fn a_signer_of_the_right_name_with_another_key_is_noticed() {
        let (root, twin) = (authority("root.test"), authority("root.test"));
        let leaf = signed(&root, parameters("www.example.com", 2026, 2028));
        assert_eq!(flaw(&[&leaf, &twin], &leaf.key.serialize_pem()), Flaw::Order(1));
    }
}
