//! An app's certificates as the router uses them, and the answers that a certificate authority asks for.
//!
//! Keys are read when the first client asks for one of their names: a table of a hundred thousand hosts is in force at
//! once. What does not read is told in the log and served with the default certificate.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use dozen_api::routes::{Certificate, Challenge, Edge};
use rustls::{crypto::ring, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// All certificates of an app.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Vec<Arc<Served>>);

struct Served {
    given: Certificate,
    loaded: OnceLock<Option<Arc<CertifiedKey>>>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.given.hosts.fmt(f)
    }
}

impl Certificates {
    /// The certificates of a table's entry; those that were known before stay loaded.
    pub(crate) fn new(edge: &Edge, before: Option<&Self>) -> Self {
        let known = |given: &Certificate| before?.0.iter().find(|served| served.given == *given).cloned();
        let fresh = |given: &Certificate| Arc::new(Served { given: given.clone(), loaded: OnceLock::new() });
        Self(edge.certificates.iter().map(|given| known(given).unwrap_or_else(|| fresh(given))).collect())
    }

    /// The certificate of a host: of its own name, else of the most specific wildcard over it.
    pub(crate) fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let of = |is: &dyn Fn(&str) -> bool| self.0.iter().find(|served| served.given.hosts.iter().any(|own| is(own)));
        let below = |suffix: &str| of(&|own| own.strip_prefix('*') == Some(suffix));
        let served =
            of(&|own| own == host).or_else(|| host.match_indices('.').find_map(|(dot, _)| below(&host[dot..])));
        served?.loaded()
    }
}

impl Served {
    fn loaded(&self) -> Option<Arc<CertifiedKey>> {
        let load = || {
            load(&self.given.chain, self.given.key.expose())
                .inspect_err(|error| {
                    tracing::error!(hosts = ?self.given.hosts, error, "a certificate cannot be used; the default is shown");
                })
                .ok()
        };
        self.loaded.get_or_init(load).clone()
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(chain: &str, key: &str) -> Result<Pair, String> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    Ok((chain.map_err(|error| error.to_string())?, key.map_err(|error| error.to_string())?))
}

fn load(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
    let (chain, key) = read(chain, key)?;
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
    pair.map(Arc::new).map_err(|error| error.to_string())
}

/// Answers for certificate authorities.
pub(crate) trait Challenges {
    /// The certificate that shows that a host leads here.
    fn challenge(&self, host: &str) -> Option<Arc<CertifiedKey>>;

    /// What is to be found at a path of the host over plain HTTP.
    fn token(&self, host: &str, path: &str) -> Option<&str>;
}

impl Challenges for Edge {
    fn challenge(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.challenges.iter().find_map(|challenge| match challenge {
            Challenge::Tls { host: own, chain, key } if own == host => {
                // What shows the name is an extension that nobody but the authority reads, and which is marked as one
                // that must be: so the pair is not looked into, as `load` would.
                let (chain, key) = read(chain, key.expose()).ok()?;
                let key = ring::sign::any_supported_type(&key).ok()?;
                Some(Arc::new(CertifiedKey::new(chain, key)))
            }
            _ => None,
        })
    }

    fn token(&self, host: &str, path: &str) -> Option<&str> {
        let asked = path.strip_prefix("/.well-known/acme-challenge/")?;
        self.challenges.iter().find_map(|challenge| match challenge {
            Challenge::Http { host: own, token, answer } if own == host && token == asked => Some(answer.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use dozen_domain::config::Secret;

    use super::*;

    fn certificate(hosts: &[&str]) -> Certificate {
        let made = rcgen::generate_simple_self_signed([hosts[0].to_owned()]).expect("a certificate");
        Certificate {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            chain: made.cert.pem(),
            key: Secret::new(made.signing_key.serialize_pem()),
        }
    }

    #[test]
    fn a_name_of_its_own_beats_a_wildcard_and_what_is_known_stays_loaded() {
        let edge =
            Edge { certificates: vec![certificate(&["*.a.test"]), certificate(&["www.a.test"])], ..Edge::default() };
        let first = Certificates::new(&edge, None);
        let own = first.find("www.a.test").expect("its own");
        let wild = first.find("x.a.test").expect("the wildcard's");
        assert!(!Arc::ptr_eq(&own, &wild));
        assert!(first.find("a.test").is_none() && first.find("www.b.test").is_none());
        let again = Certificates::new(&edge, Some(&first));
        assert!(Arc::ptr_eq(&own, &again.find("www.a.test").expect("its own")));
    }

    #[test]
    fn the_answer_to_a_challenge_is_shown_with_its_critical_extension() {
        let mut parameters = rcgen::CertificateParams::new(vec!["www.a.test".to_owned()]).expect("a name");
        parameters.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])];
        let key = rcgen::KeyPair::generate().expect("a key");
        let chain = parameters.self_signed(&key).expect("a certificate").pem();
        let key = Secret::new(key.serialize_pem());
        let challenges = vec![Challenge::Tls { host: "www.a.test".to_owned(), chain, key }];
        let edge = Edge { challenges, ..Edge::default() };
        assert!(edge.challenge("www.a.test").is_some() && edge.challenge("a.test").is_none());
    }

    #[test]
    fn a_certificate_that_does_not_read_is_passed_over() {
        let mut broken = certificate(&["www.a.test"]);
        broken.key = Secret::new("no key");
        let edge = Edge { certificates: vec![broken], ..Edge::default() };
        assert!(Certificates::new(&edge, None).find("www.a.test").is_none());
    }
}
