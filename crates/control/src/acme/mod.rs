//! Certificates from an authority that speaks ACME (RFC 8555), such as Let's Encrypt.
//!
//! [`Authority::certificate`] gets one for one host name: it shows the authority that the name leads here, by a token
//! over plain HTTP (HTTP-01) or a special handshake (TLS-ALPN-01, RFC 8737), and asks for the certificate with a fresh
//! key. When that is due, and what is done with the result, is decided in `reconcile::certificates`.

mod http;

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use dozen_api::routes::Challenge;
use dozen_domain::config::Secret;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error as AcmeError, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use self::http::Http;

/// Which authority, and who asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address of its directory.
    pub directory: String,
    /// An e-mail address for the authority's warnings.
    pub contact: Option<String>,
    /// PEM file of what its own certificate is checked against; the system's authorities without one.
    pub roots: Option<PathBuf>,
}

impl Default for Settings {
    /// Let's Encrypt, for whom its own servers are trusted by every system.
    fn default() -> Self {
        let directory = "https://acme-v02.api.letsencrypt.org/directory".to_owned();
        Self { directory, contact: None, roots: None }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority does not know the account any more.
    #[error("the certificate authority has forgotten this platform's account")]
    Forgotten,
    /// It cannot be asked, or says no.
    #[error("the certificate authority cannot be used: {}", chain(.0))]
    Authority(#[source] AcmeError),
    /// It did not find what it was to find.
    #[error("{kind}: {reason}")]
    Unproven {
        /// How it was to be shown.
        kind: &'static str,
        /// What the authority says.
        reason: String,
    },
    /// None of the ways led there.
    #[error("the certificate authority did not find this platform at that name ({0})")]
    Refused(String),
    /// A wildcard can be shown in the DNS alone.
    #[error(
        "{0} is a wildcard, which an authority gives a certificate for only after a look into the DNS, where this platform \
         cannot write: get one elsewhere and add it with heroku certs:add"
    )]
    Wildcard(String),
    /// What came cannot be served.
    #[error("the certificate authority sent what cannot be served: {0}")]
    Unusable(String),
    /// It offers no way that this platform knows.
    #[error("the certificate authority offers neither HTTP-01 nor TLS-ALPN-01 for this name")]
    NoWay,
    /// A key or a request could not be made.
    #[error("make a key and a signing request")]
    Make(#[from] rcgen::Error),
}

impl From<AcmeError> for Error {
    fn from(error: AcmeError) -> Self {
        const GONE: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
        match &error {
            AcmeError::Api(problem) if problem.r#type.as_deref() == Some(GONE) => Self::Forgotten,
            _ => Self::Authority(error),
        }
    }
}

fn chain(error: &AcmeError) -> String {
    let text = crate::reconcile::driver::chain(error);
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

/// A fresh certificate.
#[derive(Debug)]
pub struct Issued {
    /// The chain in PEM.
    pub chain: String,
    /// The key in PEM.
    pub key: Secret,
}

/// How long the authority may take to look, and then to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(60));

/// Where answers to a certificate authority are put.
#[async_trait]
pub trait Publish: Sync {
    /// Returns when the router gives this answer.
    async fn publish(&self, challenge: Challenge);
}

/// An account with a certificate authority.
pub struct Authority {
    account: Account,
}

impl Authority {
    /// Opens an account; answers what opens it again, which is a secret. Whoever does that agrees to the authority's
    /// terms of service.
    ///
    /// # Errors
    /// When the authority cannot be reached or says no.
    pub async fn register(settings: &Settings) -> Result<(Self, Secret), Error> {
        let contact = settings.contact.as_ref().map(|address| format!("mailto:{address}"));
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(Http::new(settings)?));
        let (account, credentials) = builder.create(&new, settings.directory.clone(), None).await?;
        let text = serde_json::to_string(&credentials).map_err(AcmeError::Json)?;
        Ok((Self { account }, Secret::new(text)))
    }

    /// Opens the account of [`Authority::register`] again.
    ///
    /// # Errors
    /// When the authority cannot be reached, or the credentials are none.
    pub async fn open(settings: &Settings, credentials: &Secret) -> Result<Self, Error> {
        let credentials: AccountCredentials = serde_json::from_str(credentials.expose()).map_err(AcmeError::Json)?;
        let builder = Account::builder_with_http(Box::new(Http::new(settings)?));
        Ok(Self { account: builder.from_credentials(credentials).await? })
    }

    /// Gets a certificate for one host. One way to show the name is tried after the other.
    ///
    /// # Errors
    /// When no way leads there; with what the authority said of each.
    pub async fn certificate(&self, host: &str, publish: &dyn Publish) -> Result<Issued, Error> {
        if host.starts_with("*.") {
            return Err(Error::Wildcard(host.to_owned()));
        }
        let mut said: Vec<String> = Vec::new();
        for (kind, name) in [(ChallengeType::Http01, "HTTP-01"), (ChallengeType::TlsAlpn01, "TLS-ALPN-01")] {
            match self.by(host, kind, name, publish).await {
                Err(unproven @ Error::Unproven { .. }) => said.push(unproven.to_string()),
                Err(Error::NoWay) => {}
                done => return done,
            }
        }
        if said.is_empty() { Err(Error::NoWay) } else { Err(Error::Refused(said.join("; "))) }
    }

    async fn by(
        &self,
        host: &str,
        kind: ChallengeType,
        name: &'static str,
        publish: &dyn Publish,
    ) -> Result<Issued, Error> {
        let identifiers = [Identifier::Dns(host.to_owned())];
        let mut order = self.account.new_order(&NewOrder::new(&identifiers)).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue; // a former order has shown it, or the order's state says that this one will not
            }
            let mut challenge = authorization.challenge(kind.clone()).ok_or(Error::NoWay)?;
            let authorized = challenge.key_authorization();
            let answer = match kind {
                ChallengeType::TlsAlpn01 => handshake(host, authorized.digest().as_ref())?,
                _ => Challenge::Http {
                    host: host.to_owned(),
                    token: challenge.token.clone(),
                    answer: authorized.as_str().to_owned(),
                },
            };
            publish.publish(answer).await;
            challenge.set_ready().await?;
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(Error::Unproven { kind: name, reason: reason(&mut order).await }),
            Err(AcmeError::Api(problem)) if order.state().status == OrderStatus::Invalid => {
                let reason = problem.detail.clone().unwrap_or_else(|| problem.to_string());
                return Err(Error::Unproven { kind: name, reason });
            }
            Err(error) => return Err(error.into()),
        }
        let key = KeyPair::generate()?;
        let mut request = CertificateParams::new(vec![host.to_owned()])?;
        request.distinguished_name = DistinguishedName::new();
        order.finalize_csr(request.serialize_request(&key)?.der()).await?;
        let chain = order.poll_certificate(&PATIENCE).await?;
        Ok(Issued { chain, key: Secret::new(key.serialize_pem()) })
    }
}

/// What the authority found instead.
async fn reason(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(error) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return error.detail.clone().unwrap_or_else(|| error.to_string());
        }
    }
    let state = order.state();
    state.error.as_ref().map_or_else(|| format!("the order is {:?}", state.status), ToString::to_string)
}

/// The certificate that a handshake for `acme-tls/1` shows: signed by itself, with the digest in an extension.
fn handshake(host: &str, digest: &[u8]) -> Result<Challenge, Error> {
    let mut parameters = CertificateParams::new(vec![host.to_owned()])?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let chain = parameters.self_signed(&key)?.pem();
    Ok(Challenge::Tls { host: host.to_owned(), chain, key: Secret::new(key.serialize_pem()) })
}
